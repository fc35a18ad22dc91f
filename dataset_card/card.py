"""Render and write the card of a dataset folder: README.md, from the shards, the provenance and one template."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard

from builders.dataset_folder import DescriptionSet, configs_of, read_sets, refresh_checksum
from builders.files import write_atomic
from dataset_card import markdown
from dataset_card.metadata import CardLicense, card_metadata
from dataset_card.statistics import SetStatistics, Spread, count_set

_TEMPLATE = Path(__file__).with_name("template.md.jinja")
PRETTY_NAME = "Machine descriptions of dermatology photographs"
_UNDECIDED = CardLicense()


@dataclass(frozen=True, slots=True)
class SetCard:
    """One description set as the template sees it: every value is Markdown already, inert and ready to print."""

    name: str
    is_primary: bool
    n_rows: int
    facts: str
    prompt: str
    command: str
    lengths: str
    finish_reasons: str
    flags: str
    left_out: str
    n_distinct: int
    n_truncated: int


def render_card(
    dataset: Path,
    *,
    pretty_name: str = PRETTY_NAME,
    card_license: CardLicense = _UNDECIDED,
) -> str:
    """The card of the dataset folder at `dataset`, as text; the same folder gives the same text."""
    sets = read_sets(dataset)
    statistics = {each.name: count_set(each) for each in sets}
    primary, counted = sets[0], statistics[sets[0].name]
    metadata = card_metadata(configs_of(dataset), statistics, pretty_name, card_license)
    card = DatasetCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        title=markdown.plain(pretty_name),
        sets=[_set_card(each, statistics[each.name]) for each in sets],
        primary=primary.name,
        with_images="image" in counted.features,
        columns=list(counted.features),
        n_labels=len(counted.features["label"].names),
        labels=_labels(counted),
        splits=_splits(counted),
        audit=primary.build["splits"],
        n_copies=counted.n_copies,
        n_balanced=counted.n_balanced,
        seed=primary.build["seed"],
        validation_fraction=primary.build["validation_fraction"],
        license_is_decided=card_license.is_decided,
    )
    return str(card)


def write_card(dataset: Path, *, pretty_name: str = PRETTY_NAME, card_license: CardLicense = _UNDECIDED) -> None:
    """Write `README.md` into a dataset folder, and its checksum where checksums exist."""
    text = render_card(dataset, pretty_name=pretty_name, card_license=card_license)
    write_atomic(dataset / "README.md", lambda part: part.write_text(text, encoding="utf-8"))
    refresh_checksum(dataset, "README.md")


def _set_card(described: DescriptionSet, statistics: SetStatistics) -> SetCard:
    run = described.run
    prompt = run.get("prompt", {})
    return SetCard(
        name=described.name,
        is_primary=described.is_primary,
        n_rows=statistics.n_rows,
        facts=markdown.table(["", ""], _facts(described), n_text_columns=2),
        prompt=markdown.block(prompt.get("text", "")),
        command=markdown.block(run.get("command", ""), "bash"),
        lengths=_lengths(statistics),
        finish_reasons=_shares("Finish reason", statistics.finish_reasons, statistics.n_rows),
        flags=_shares("Flag", statistics.flags, statistics.n_rows),
        left_out=_left_out(described),
        n_distinct=statistics.n_distinct,
        n_truncated=statistics.finish_reasons["length"],
    )


def _facts(described: DescriptionSet) -> list[list[object]]:
    """What made a set, as rows of name and value; what a run does not tell is left out."""
    run = described.run
    model, prompt, engine = run.get("model", {}), run.get("prompt", {}), run.get("engine", {})
    facts = {
        "Model": model.get("id"),
        "Model revision": model.get("revision"),
        "Prompt": prompt.get("name"),
        "Prompt sha256": prompt.get("sha256"),
        "Engine": engine.get("kind"),
        "Number format": engine.get("resolved_dtype") or engine.get("dtype"),
        "Versions": _pairs(engine.get("versions")),
        "Decoding": _pairs(run.get("sampling")),
        "Preprocessing": _pairs(run.get("preprocessing")),
        "Fingerprint": run.get("fingerprint"),
        "Described": run.get("created_at"),
    }
    return [[name, value] for name, value in facts.items() if value]


def _pairs(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in (values or {}).items())


def _left_out(described: DescriptionSet) -> str:
    """A table of the photographs that have no row, by what became of them; "" if there are none."""
    counts = described.build["rows"]["n_left_out"]
    rows: list[list[object]] = [[status, n_rows] for status, n_rows in counts.items()]
    return markdown.table(["Left out", "Photographs"], rows) if rows else ""


def _labels(statistics: SetStatistics) -> str:
    splits = list(statistics.splits)
    rows: list[list[object]] = [
        [
            label or "(no label)",
            *(n_rows[split] for split in splits),
            n_rows.total(),
            100 * n_rows.total() / statistics.n_rows,
        ]
        for label, n_rows in statistics.labels.items()
    ]
    return markdown.table(["Label", *splits, "All", "%"], rows)


def _splits(statistics: SetStatistics) -> str:
    source = Counter({split: size.n_rows for split, size in statistics.splits.items()})
    rows: list[list[object]] = [
        [split, source[split], statistics.official[split], statistics.clean[split]]
        for split in ("train", "validation", "test", "excluded")
    ]
    return markdown.table(["Rows", "files (the source's split)", "split_official", "split_clean"], rows)


def _lengths(statistics: SetStatistics) -> str:
    spreads: dict[str, Spread] = {
        "Words": statistics.words,
        "Characters": statistics.characters,
        "Output tokens": statistics.output_tokens,
        "Image tokens": statistics.image_tokens,
    }
    rows: list[list[object]] = [[name, *asdict(each).values()] for name, each in spreads.items()]
    return markdown.table(["Per description", "Min", "Median", "Mean", "95 %", "Max"], rows)


def _shares(title: str, counts: Counter[str], n_rows: int) -> str:
    """A table of counts with their share of all rows, the most frequent first; "" where nothing was counted."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[list[object]] = [[name, count, 100 * count / n_rows] for name, count in ordered]
    return markdown.table([title, "Rows", "%"], rows) if rows else ""
