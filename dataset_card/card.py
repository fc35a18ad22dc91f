"""Write what a dataset folder says about itself: README.md, croissant.json and the plots, all from its shards."""

import json
from collections import Counter
from pathlib import Path

from huggingface_hub import DatasetCard

from builders import markdown
from builders.dataset_folder import SPLITS, refresh_checksum
from builders.files import write_atomic
from dataset_card import statements
from dataset_card.audit_section import audit_notes, audit_table
from dataset_card.choices import CardChoices, mark_of, read_choices
from dataset_card.columns import COLUMNS
from dataset_card.croissant import croissant
from dataset_card.drawing import png_of
from dataset_card.facts import Facts, gather
from dataset_card.metadata import card_metadata
from dataset_card.plots import ASSETS, plots_of
from dataset_card.set_section import build_command, set_section
from dataset_card.statistics import SetStatistics

README, CROISSANT = "README.md", "croissant.json"
_TEMPLATE = Path(__file__).with_name("template.md.jinja")


def write_card(dataset: Path, choices: CardChoices | None = None) -> None:
    """Write all that a dataset folder says about itself, and the checksums of it where checksums exist.

    Without `choices` those of the card that is there are kept, or the defaults stand where there is none.
    """
    facts = gather(dataset, choices or read_choices(dataset))
    written = {README: render_card(facts).encode(), CROISSANT: render_croissant(facts).encode()}
    written |= {f"{ASSETS}/{name}": png_of(plot) for name, plot in plots_of(facts.statistics).items()}
    for path, content in written.items():
        if not (dataset / path).is_file() or (dataset / path).read_bytes() != content:
            _write(dataset / path, content)
            refresh_checksum(dataset, path)


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda part: part.write_bytes(content))


def render_croissant(facts: Facts) -> str:
    """croissant.json as text."""
    return json.dumps(croissant(facts), indent=2, ensure_ascii=False) + "\n"


def render_card(facts: Facts) -> str:
    """README.md as text; the same folder gives the same text."""
    chosen, primary = facts.choices, facts.primary
    counted = facts.statistics[primary.name]
    plots = {name: f"{plot['title']}; {plot['note']}" for name, plot in plots_of(facts.statistics).items()}
    card = DatasetCard.from_template(
        card_metadata(facts),
        template_path=str(_TEMPLATE),
        title=markdown.plain(chosen.pretty_name),
        load_name=chosen.repo_id or "OWNER/NAME",
        is_published=chosen.repo_id is not None,
        license_is_decided=chosen.license.is_decided,
        license_name=markdown.plain(chosen.license.name or chosen.license.license),
        primary=primary.name,
        with_images=facts.with_images,
        sets=[set_section(each, facts, plots) for each in facts.sets],
        splits_named=list(counted.splits),
        classes_plot=plots["classes.png"],
        columns=_columns(facts),
        labels=_labels(counted),
        sizes=_sizes(counted),
        n_labels=len(counted.features["label"]["names"]),
        splits=_splits(counted),
        derived=facts.splits,
        n_copies=counted.n_copies,
        n_balanced=counted.n_balanced,
        seed=primary.build["seed"],
        limit=primary.build.get("limit"),
        validation_percent=f"{100 * primary.build['validation_fraction']:g}",
        build_command=markdown.block(build_command(facts), "bash"),
        source=markdown.plain(statements.source(facts)),
        audit=audit_table(facts.audit or {}),
        audit_notes=audit_notes(facts.audit or {}),
        risks=[(markdown.plain(name), markdown.plain(what)) for name, what in statements.risks(facts)],
        contact=markdown.plain(statements.contact(facts)),
        statements=statements,
    )
    return f"{str(card).rstrip()}\n\n{mark_of(chosen)}"


def _columns(facts: Facts) -> str:
    """The columns of all sets, in the primary set's order, with what they mean and in which sets they are."""
    order = [name for each in facts.statistics.values() for name in each.features]
    lines = ["| Column | Meaning |", "| --- | --- |"]
    for name in dict.fromkeys(order):
        holders = [each for each, counted in facts.statistics.items() if name in counted.features]
        where = "" if len(holders) == len(facts.sets) else f" (in {', '.join(holders)})"
        lines.append(f"| `{name}` | {COLUMNS[name]}{where} |")
    return "\n".join(lines)


def _labels(statistics: SetStatistics) -> str:
    splits, clean = list(statistics.splits), [split for split in SPLITS if statistics.clean[split]]
    rows: list[list[object]] = [
        [
            label or "(no label)",
            *(n_rows[split] for split in splits),
            n_rows.total(),
            100 * n_rows.total() / statistics.n_rows,
            *(statistics.clean_labels[label][split] for split in clean),
        ]
        for label, n_rows in statistics.labels.items()
    ]
    return markdown.table(["Label", *splits, "All", "%", *(f"clean {split}" for split in clean)], rows)


def _sizes(statistics: SetStatistics) -> list[int]:
    """Rows of the smallest and of the largest class that has any."""
    sizes = [n_rows.total() for n_rows in statistics.labels.values() if n_rows.total()]
    return [min(sizes), max(sizes)]


def _splits(statistics: SetStatistics) -> str:
    source = Counter({split: size.n_rows for split, size in statistics.splits.items()})
    rows: list[list[object]] = [
        [split, source[split], statistics.official[split], statistics.clean[split]]
        for split in ("train", "validation", "test", "excluded")
    ]
    return markdown.table(["Rows", "files (the source's split)", "split_official", "split_clean"], rows)
