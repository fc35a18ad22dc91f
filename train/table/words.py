"""The table in words: its parts as text, the notes, and flat records; the same for every rendering."""

from typing import TYPE_CHECKING, Any

from train.statistics.bootstrap import N_RESAMPLES
from train.statistics.interval import Interval
from train.table.numbers import METRICS, p_text, plus_minus, signed, span
from train.table.published import BASELINE, title_of
from train.table.render import Part
from train.table.sentences import sentences

if TYPE_CHECKING:
    from train.table.rows import Comparison, Delta, Row, Table

CONTROL_NOTES = {
    "+shuffled_text_within_class": "Shuffled within class: labels of test rows pick texts: a bound, not a result.",
    "+emap": "EMAP: of the best fusion on validation, what is left where image and text may only add up. A linear head "
    "over both only adds: it is its own EMAP. Beyond 5,000 test rows (256 where tokens are read) its means are over a "
    "sample of them; the runs in results.json tell of how many.",
}
FEW_GROUPS = 50  # below it the percentile bootstrap covers visibly less than it says
PROTOCOLS = ("official", "clean")


def parts(table: "Table") -> list[Part]:
    """The paper's table; then by protocol intervals, each row against the image alone, each model against controls."""
    found = [overview(table)]
    baseline = title_of(BASELINE, table.origin)
    for protocol in table.protocols:
        found.append(_intervals(table, protocol))
        against = {row.title: row.against_image_only.get(protocol) for row in table.rows}
        found += _differences(f"{protocol}: minus {baseline}", "model", against)
        over = {row.title: row.model_minus_control.get(protocol) for row in table.rows}
        found += _differences(f"{protocol}: model minus its control", "control", over)
    return found


def overview(table: "Table") -> Part:
    """What the paper reports beside ours, mean ± sd, both protocols side by side."""
    header = ["model", "paper acc.", "paper F1"]
    header += [f"{protocol} {metric}" for protocol in table.protocols for metric in ("acc.", "F1")]
    lines: list[list[str]] = []
    for row in table.rows:
        has_published = row.published_accuracy is not None and row.published_macro_f1 is not None
        line = [row.title]
        line += [f"{row.published_accuracy:.2f}", f"{row.published_macro_f1:.4f}"] if has_published else ["–", "–"]
        for protocol in table.protocols:
            score = row.ours.get(protocol)
            line += (
                ["–", "–"]
                if score is None
                else [
                    plus_minus(score.accuracy_mean, score.accuracy_sd, 2),
                    plus_minus(score.macro_f1_mean, score.macro_f1_sd, 4),
                ]
            )
        lines.append(line)
    return Part("published and ours", header, lines)


def _intervals(table: "Table", protocol: str) -> Part:
    header = ["model", "acc. over seeds", "acc. bootstrap", "F1 over seeds", "F1 bootstrap"]
    lines = [
        [
            row.title,
            span(score.accuracy_over_seeds, 2),
            span(score.accuracy_bootstrap, 2),
            span(score.macro_f1_over_seeds, 4),
            span(score.macro_f1_bootstrap, 4),
        ]
        for row in table.rows
        if (score := row.ours.get(protocol)) is not None
    ]
    return Part(f"{protocol}: 95 % intervals", header, lines)


def _differences(title: str, what: str, found: "dict[str, Comparison | None]") -> list[Part]:
    header = [what, "Δ acc.", "95 %", "Δ F1", "95 %", "only right", "p", "p (Holm)"]
    lines = [
        [
            name,
            signed(f"{each.accuracy.mean:+.2f}"),
            span(Interval(each.accuracy.low, each.accuracy.high), 2, "+"),
            signed(f"{each.macro_f1.mean:+.4f}"),
            span(Interval(each.macro_f1.low, each.macro_f1.high), 4, "+"),
            f"{each.n_only_first} : {each.n_only_second}",
            p_text(each.p_value),
            p_text(each.p_holm),
        ]
        for name, each in found.items()
        if each is not None
    ]
    return [Part(title, header, lines)] if lines else []


def notes(table: "Table") -> list[str]:
    """What has to be known to read the numbers."""
    counts: list[str] = []
    is_single = is_small = False
    for protocol in table.protocols:
        scores = [row.ours[protocol] for row in table.rows if protocol in row.ours]
        n_test, n_groups = scores[0].n_test, scores[0].n_groups
        n_seeds = sorted({score.n_seeds for score in scores})
        is_single = is_single or n_seeds[0] == 1
        is_small = is_small or n_groups < FEW_GROUPS
        seeds = str(n_seeds[0]) if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
        plural = "" if seeds == "1" else "s"
        counts.append(f"{protocol}: {n_test} test images in {n_groups} groups of copies, {seeds} seed{plural}.")
    absent = [protocol for protocol in PROTOCOLS if protocol not in table.protocols]
    return [
        "Paper: published on DermNet, one run; comparable only to ours on DermNet's official split.",
        "Ours: mean ± standard deviation over seeds; accuracy in %, macro-F1 in [0, 1].",
        *counts,
        *(f"{protocol}: not trained; a table for others shows both protocols." for protocol in absent),
        f"95 % intervals: over seeds, Student's t; bootstrap, {N_RESAMPLES} resamples of seeds (their spread made up "
        "for how few they are) and of groups of test images; of a difference, paired by seed and image, and not "
        "corrected for the number of rows.",
        *(["One seed: its intervals cover other test images, not chance in training."] if is_single else []),
        *([f"Fewer than {FEW_GROUPS} groups: bootstrap intervals are too narrow."] if is_small else []),
        "p: McNemar, exact, of the plurality of the seeds (of equals the first seed's), one image of each group; "
        "'only right' counts the images that only the first, and only the second gets right. Holm: corrected for the "
        "models of a part, and for its controls.",
        *(
            ["Without a control: a fusion's head is larger than that of the image alone; see `train --control all`."]
            if any("without a control" in sentence for sentence in sentences(table))
            else []
        ),
        *(note for control, note in CONTROL_NOTES.items() if any(row.model.endswith(control) for row in table.rows)),
        *table.origin.about,
        f"{table.origin.texts} Research only, not for clinical use.",
    ]


def flat(row: "Row") -> list[dict[str, Any]]:
    """One record per protocol, all numbers unrounded, empty where there is none."""
    records: list[dict[str, Any]] = []
    for protocol, score in row.ours.items():
        record: dict[str, Any] = {
            "model": row.model,
            "protocol": protocol,
            "published_accuracy": row.published_accuracy,
            "published_macro_f1": row.published_macro_f1,
            "n_seeds": score.n_seeds,
            "n_test": score.n_test,
            "n_groups": score.n_groups,
        }
        for name, *_ in METRICS:
            over_seeds: Interval | None = getattr(score, f"{name}_over_seeds")
            bootstrap: Interval = getattr(score, f"{name}_bootstrap")
            record |= {
                f"{name}_mean": getattr(score, f"{name}_mean"),
                f"{name}_sd": getattr(score, f"{name}_sd"),
                f"{name}_over_seeds_low": None if over_seeds is None else over_seeds.low,
                f"{name}_over_seeds_high": None if over_seeds is None else over_seeds.high,
                f"{name}_bootstrap_low": bootstrap.low,
                f"{name}_bootstrap_high": bootstrap.high,
            }
        for kind, compared in (
            ("against_image_only", row.against_image_only.get(protocol)),
            ("model_minus_control", row.model_minus_control.get(protocol)),
        ):
            for name, *_ in METRICS:
                delta: Delta | None = None if compared is None else getattr(compared, name)
                for part in ("mean", "low", "high"):
                    record[f"{kind}_{name}_{part}"] = None if delta is None else getattr(delta, part)
            for name in ("n_only_first", "n_only_second", "p_value", "p_holm"):
                record[f"{kind}_{name}"] = None if compared is None else getattr(compared, name)
        records.append(record)
    return records
