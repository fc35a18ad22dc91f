"""Learning curves: loss and macro-F1 by epoch, every seed faint and their mean on top; the epoch that was kept."""

from itertools import zip_longest
from statistics import mean
from typing import Any

from markupsafe import Markup

from train.report.groups import Group
from train.report.runs import FinishedRun
from train.report.svg import Line, Point, line_chart

MAX_POINTS = 200  # per line: a plot is 300 pixels wide


def curves_of(group: Group) -> dict[str, Any]:
    """Two plots per model, on the same scales within the protocol."""
    have = {model: [run for run in runs if run.record.get("history")] for model, runs in group.models.items()}
    have = {model: runs for model, runs in have.items() if runs}
    if not have:
        return {"absent": "no model folder holds its history (models/*/config.json)"}
    losses = [
        epoch[key]
        for runs in have.values()
        for run in runs
        for epoch in run.record["history"]
        for key in ("train_loss", "validation_loss")
    ]
    ceiling = sorted(losses)[int(0.99 * (len(losses) - 1))]  # one bad epoch would flatten all others
    panels = [
        {
            "title": group.title_of(model),
            "loss": _plot(group, model, runs, ("train_loss", "validation_loss"), "loss", (0.0, max(ceiling, 1e-3))),
            "f1": _plot(group, model, runs, ("validation_macro_f1",), "validation macro-F1", (0.0, 1.0)),
            "kept": _kept(runs),
        }
        for model, runs in have.items()
    ]
    return {"panels": panels, "n_without": len(group.models) - len(have)}


def _plot(
    group: Group, model: str, runs: list[FinishedRun], keys: tuple[str, ...], what: str, y_range: Point
) -> Markup:
    lines: list[Line] = []
    for style, key in enumerate(keys):
        style = style if len(keys) > 1 else 1  # validation looks the same in both plots
        series = [[(float(each["epoch"]), float(each[key])) for each in run.record["history"]] for run in runs]
        if len(series) > 1:
            lines += [Line(key, _thinned(points), is_faint=True, style=style) for points in series]
        lines.append(Line(key, _thinned(_mean(series)), has_markers=False, style=style))
    title = f"{group.title_of(model)}, {group.protocol}: {what} by epoch, {len(runs)} seed{'s' * (len(runs) > 1)}"
    return line_chart(title, ("epoch", what), lines, y_range, size_px=(272, 180))


def _mean(series: list[list[Point]]) -> list[Point]:
    """The mean by epoch; a run that stopped early counts as long as it ran."""
    columns = zip_longest(*series)
    return [
        (next(point[0] for point in column if point), mean(point[1] for point in column if point)) for column in columns
    ]


def _thinned(points: list[Point]) -> list[Point]:
    every = -(-len(points) // MAX_POINTS)
    return points if every == 1 else [*points[:-1:every], points[-1]]


def _kept(runs: list[FinishedRun]) -> str:
    epochs = [run.record["best"]["epoch"] for run in runs if "best" in run.record]
    n_epochs = max(len(run.record["history"]) for run in runs)
    return f"best: epoch {', '.join(map(str, epochs))} of {n_epochs}" if epochs else f"{n_epochs} epochs"
