"""One description set as the card shows it: what made it, what it took, what it holds; all of it inert Markdown."""

import json
import re
import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from builders import markdown
from builders.dataset_folder import DescriptionSet
from dataset_card.columns import FLAGS
from dataset_card.facts import Facts
from dataset_card.plots import plot_names
from dataset_card.statistics import SetStatistics, spread

N_FREQUENT, N_TYPICAL, N_VALUES = 8, 5, 6
_REVISION = re.compile(r" --revision[ =]\S+")  # a branch moves, and a commit is said once


@dataclass(frozen=True, slots=True)
class SetSection:
    """What the template prints of a set; an empty text is a part that the set does not have."""

    name: str
    is_primary: bool
    n_rows: int
    n_distinct: int
    facts: str
    cost: str
    prompt: str
    schema_name: str
    schema_prompt: str
    json_schema: str
    classes_in_prompt: str
    command: str
    lengths: str
    finish_reasons: str
    flags: str
    findings: str
    reviews: str
    terms: str
    left_out: str
    plots: dict[str, str]


def set_section(described: DescriptionSet, facts: Facts, plots: dict[str, str]) -> SetSection:
    """The section of one set; `plots` maps the file names of all plots of the dataset to what they show."""
    run, statistics = described.run, facts.statistics[described.name]
    prompt, schema = run.get("prompt", {}), run.get("schema") or {}
    return SetSection(
        name=described.name,
        is_primary=described.is_primary,
        n_rows=statistics.n_rows,
        n_distinct=statistics.n_distinct,
        facts=markdown.table(["", ""], _facts(run), n_text_columns=2),
        cost=_cost(run, described.summary or {}),
        prompt=markdown.block(prompt.get("text", "")),
        schema_name=markdown.plain(schema.get("name", "")),
        schema_prompt=markdown.block(schema["prompt"]) if "prompt" in schema else "",
        json_schema=_json_block(schema["json_schema"]) if "json_schema" in schema else "",
        classes_in_prompt=_classes_in(str(prompt.get("text", "")), statistics),
        command=markdown.block(regenerate_command(run), "bash"),
        lengths=_lengths(statistics),
        finish_reasons=shares("Finish reason", statistics.finish_reasons, statistics.n_rows),
        flags=_flags(statistics),
        findings=_findings(statistics),
        reviews=shares("Reviewer's mark", statistics.reviews, statistics.n_rows),
        terms=_terms(statistics),
        left_out=_left_out(described),
        plots={name: plots[name] for name in plot_names(described.name) if name in plots},
    )


def regenerate_command(run: dict[str, Any]) -> str:
    """The command that made a run, with the model pinned to the commit that was used."""
    command, revision = str(run.get("command", "")), str(run.get("model", {}).get("revision", ""))
    is_commit = len(revision) == 40 and "/" in str(run.get("model", {}).get("id", ""))
    if command.startswith("vl-dermnet annotate") and is_commit:
        return f"{_REVISION.sub('', command)} --revision {revision}"
    return command


def build_command(facts: Facts) -> str:
    """The command that makes the dataset of the runs; folders are named after their sets."""
    runs = [word for each in facts.sets for word in ("--run", _named_run(each))]
    words = ["vl-dermnet", "build", "IMAGES", *runs, "--out", "DATASET", "--seed", str(facts.primary.build["seed"])]
    if len(facts.sets) > 1:
        words += ["--primary", facts.primary.name]
    if facts.with_images:
        words.append("--with-images")
    if facts.primary.build.get("limit") is not None:
        words += ["--limit", str(facts.primary.build["limit"])]
    if any(each.build.get("n_reviewed") for each in facts.sets):
        words += ["--review", "MARKS.csv"]
    if any(_is_partial(each) for each in facts.sets):
        words.append("--allow-partial")
    if facts.audit is not None:
        words += ["--audit", "AUDIT"]
    return shlex.join(words)


def _is_partial(described: DescriptionSet) -> bool:
    """Whether the set could not have been built without --allow-partial."""
    lacks_some = "missing" in described.build["rows"]["n_left_out"]
    return bool(described.build.get("allow_partial")) and (described.summary is None or lacks_some)


def _named_run(described: DescriptionSet) -> str:
    """A run's folder, and its set's name where that is not the run's own."""
    return f"{described.name}=runs/{described.name}" if "set_name_of_run" in described.run else f"runs/{described.name}"


def _facts(run: dict[str, Any]) -> list[list[object]]:
    """What made a set, as rows of name and value; what a run does not tell is left out."""
    model, prompt, engine = run.get("model", {}), run.get("prompt", {}), run.get("engine", {})
    facts = {
        "Model": model.get("id"),
        "Model revision": model.get("revision"),
        "Architecture": model.get("architecture"),
        "Prompt": prompt.get("name"),
        "Prompt sha256": prompt.get("sha256"),
        "Findings' schema": _pairs(run.get("schema"), hidden=("json_schema", "prompt")),
        "Engine": engine.get("kind"),
        "Engine's settings": _pairs(engine.get("args")),
        "Number format": engine.get("resolved_dtype") or engine.get("dtype"),
        "Versions": _pairs(engine.get("versions")),
        "Decoding": _pairs(run.get("sampling")),
        "Preprocessing": _pairs(run.get("preprocessing")),
        "Fingerprint": run.get("fingerprint"),
        "Described": run.get("created_at"),
    }
    return [[name, value] for name, value in facts.items() if value]


def _json_block(value: object) -> str:
    return markdown.block(json.dumps(value, indent=2, ensure_ascii=False), "json")


def _cost(run: dict[str, Any], summary: dict[str, Any]) -> str:
    """What the run took, as a table; "" where the run does not tell (older ones lack some of these numbers)."""
    busy = summary.get("engine_busy")
    numbers = {
        "GPU hours": summary.get("gpu_hours"),
        "Hours of describing": _hours(summary.get("wall_s")),
        "Images per second": summary.get("images_per_s"),
        "Output tokens per second": summary.get("output_tokens_per_s"),
        "Engines busy, %": None if busy is None else 100 * float(busy),
        "Answers asked for again": summary.get("n_retried"),
        "Texts that lost their flag so": summary.get("n_mended"),
        "Sessions": summary.get("n_sessions"),
        "Engines started again": summary.get("n_restarts"),
        "Machine": _pairs(run.get("machine")) or None,
    }
    rows: list[list[object]] = [[name, _precise(value)] for name, value in numbers.items() if value is not None]
    return markdown.table(["The run took", ""], rows) if rows else ""


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600


def _precise(value: object) -> object:
    """Small numbers keep two digits that say something."""
    return f"{value:.2g}" if isinstance(value, float) and 0 < abs(value) < 10 else value


def _pairs(values: dict[str, Any] | None, hidden: tuple[str, ...] = ()) -> str:
    shown = {name: value for name, value in (values or {}).items() if name not in hidden}
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in shown.items())


def _classes_in(prompt: str, statistics: SetStatistics) -> str:
    """The class names that the prompt itself holds: a model that is told the classes has more to copy from."""
    text = " ".join(prompt.lower().split())
    return ", ".join(markdown.plain(name) for name in statistics.labels if name and name.lower() in text)


def _lengths(statistics: SetStatistics) -> str:
    counts: dict[str, Counter[int]] = {
        "Words": statistics.words,
        "Characters": statistics.characters,
        "Output tokens": statistics.output_tokens,
        "Prompt tokens": statistics.prompt_tokens,
        "Image tokens": statistics.image_tokens,
    }
    rows: list[list[object]] = [[name, *asdict(spread(each)).values()] for name, each in counts.items()]
    return markdown.table(["Per description", "Min", "Median", "Mean", "95 %", "Max"], rows)


def shares(title: str, counts: Counter[str], n_rows: int) -> str:
    """A table of counts with their share of all rows, the most frequent first; "" where nothing was counted."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[list[object]] = [[name, count, 100 * count / n_rows] for name, count in ordered]
    return markdown.table([title, "Rows", "%"], rows) if rows else ""


def _flags(statistics: SetStatistics) -> str:
    ordered = sorted(statistics.flags.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[list[object]] = [
        [name, FLAGS.get(name, ""), count, 100 * count / statistics.n_rows] for name, count in ordered
    ]
    return markdown.table(["Flag", "Meaning", "Rows", "%"], rows, n_text_columns=2) if rows else ""


def _findings(statistics: SetStatistics) -> str:
    """The most frequent values of each finding, with the share of rows that name them."""
    rows: list[list[object]] = []
    for name, counts in statistics.findings.items():
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:N_VALUES]
        told = ", ".join(f"{value} ({100 * count / statistics.n_rows:.0f} %)" for value, count in ordered)
        rows.append([name, told, len(counts)])
    return markdown.table(["Finding", "Most frequent values", "Different"], rows, n_text_columns=2) if rows else ""


def _terms(statistics: SetStatistics) -> str:
    """Per class the words in most descriptions, and those that set it off from the others."""
    typical = statistics.terms.most_typical(N_TYPICAL)
    rows: list[list[object]] = []
    for label in statistics.labels:
        n_rows = statistics.terms.n_rows[label]
        frequent = statistics.terms.most_frequent(label, N_FREQUENT)
        if frequent:
            told = ", ".join(f"{term} {100 * count / n_rows:.0f} %" for term, count in frequent)
            rows.append([label or "(no label)", told, ", ".join(typical[label])])
    return (
        markdown.table(["Label", "Words in most descriptions", "More than in other classes"], rows, 3) if rows else ""
    )


def _left_out(described: DescriptionSet) -> str:
    """A table of the photographs that have no row, by what became of them; "" if there are none."""
    counts = described.build["rows"]["n_left_out"]
    rows: list[list[object]] = [[status, n_rows] for status, n_rows in counts.items()]
    return markdown.table(["Left out", "Photographs"], rows) if rows else ""
