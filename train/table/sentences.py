"""Whether text helps, said from the intervals and the controls, never from the mean."""

from typing import TYPE_CHECKING

from train.table.numbers import METRICS, signed
from train.table.published import reads_both

if TYPE_CHECKING:
    from train.table.rows import Comparison, Delta, Row, Table

VERDICTS = ("helps", "hurts", "cannot be told")
TEXT_FREE = ("shuffled_text", "empty_text", "constant_text", "random_text", "matched_image_only")


def sentences(table: "Table") -> list[str]:
    """For each protocol and metric: where text helps, where it hurts, where it cannot be told; from the intervals.

    A fusion has more parameters than the image alone, so text helps only where the fusion is also better than each of
    its controls that read no text about the image, and hurts only where it is also worse than each; where none was
    trained, the sentence says so, and where there was one seed. Then for each model
    with controls: which of them it is better than, worse than, and cannot be told from.
    """
    said: list[str] = []
    for protocol in table.protocols:
        fusions = [row for row in table.rows if reads_both(row.model) and protocol in row.against_image_only]
        if not fusions:
            said.append(f"{protocol}: whether text helps cannot be told: no fusion beside the image alone was trained.")
        about = "text helps in", "text hurts in", "cannot be told for"
        said += [
            f"{protocol} {metric[1]}: {_grouped(about, [_of_text(table, row, protocol, *metric) for row in fusions])}"
            for metric in METRICS
            if fusions
        ]
        about = "better than", "worse than", "not to be told from"
        said += [
            f"{protocol} {metric[1]}: {model} is {_grouped(about, [_of_control(*each, *metric) for each in pairs])}"
            for model, pairs in _over_controls(table, protocol).items()
            for metric in METRICS
        ]
    return said


Judged = tuple[str, str]  # a verdict, and the name with its numbers


def _of_text(table: "Table", row: "Row", protocol: str, name: str, _: str, unit: str, digits: int) -> Judged:
    compared = row.against_image_only[protocol]
    delta: Delta = getattr(compared, name)
    verdict, because = str(delta.verdict), ""
    if verdict != "cannot be told":
        controls = {
            each.model.rpartition("+")[2].replace("_", " "): each.model_minus_control[protocol]
            for each in table.rows
            if each.model in {f"{row.model}+{control}" for control in TEXT_FREE}
            and protocol in each.model_minus_control
        }
        others = [control for control, each in controls.items() if getattr(each, name).verdict != verdict]
        if others:
            than = "above" if verdict == "helps" else "below"
            verdict, because = "cannot be told", f", but not {than} {' and '.join(others)}"
        elif not controls:
            because = ", without a control"
    return verdict, f"{row.title} ({_delta(delta, unit, digits)}{because}{_of_one_seed(compared)})"


def _of_control(control: str, compared: "Comparison", name: str, _: str, unit: str, digits: int) -> Judged:
    delta: Delta = getattr(compared, name)
    return delta.verdict, f"{control} ({_delta(delta, unit, digits)}{_of_one_seed(compared)})"


def _of_one_seed(compared: "Comparison") -> str:
    """Another seed may say otherwise, and no interval of one seed knows of that."""
    return ", one seed" if compared.n_seeds == 1 else ""


def _over_controls(table: "Table", protocol: str) -> "dict[str, list[tuple[str, Comparison]]]":
    """By model, its controls' names and it minus each of them."""
    found: dict[str, list[tuple[str, Comparison]]] = {}
    for row in table.rows:
        if protocol in row.model_minus_control:
            model, _, control = row.title.rpartition(": ")
            found.setdefault(model, []).append((control, row.model_minus_control[protocol]))
    return found


def _grouped(clauses: tuple[str, str, str], judged: list[Judged]) -> str:
    by_verdict = {verdict: [text for each, text in judged if each == verdict] for verdict in VERDICTS}
    named = zip(clauses, by_verdict.values(), strict=True)
    return "; ".join(f"{clause} {', '.join(texts)}" for clause, texts in named if texts) + "."


def _delta(delta: "Delta", unit: str, digits: int) -> str:
    mean = f"{delta.mean:+.{digits}f} {unit}".rstrip()
    return signed(f"{mean}, 95 % {delta.low:+.{digits}f} to {delta.high:+.{digits}f}")
