"""Accuracy where it is easy to come by and where not: near to and far from train, and with a modality missing."""

from typing import Any

import numpy as np

from builders.foreign_text import visible
from train.metrics import accuracy, macro_f1
from train.report.groups import Group, plus_minus
from train.report.runs import Distances
from train.report.svg import Line, line_chart

N_PARTS = 5
MAX_LINES = 6


def distance_of(group: Group, measured: Distances | None) -> dict[str, Any]:
    """Accuracy by quintile of the distance to the nearest train image, per model."""
    if measured is None:
        return {
            "absent": "distances are not there: they are measured where a model sees images, and the same "
            "`vl-dermnet train` command again writes those that are missing"
        }
    distances = measured.by_id
    ids = group.chosen_runs[0].test.image_ids
    if len(ids) < 2 * N_PARTS:
        return {"absent": f"{len(ids)} test images are too few for {N_PARTS} parts"}
    if any(image_id not in distances for image_id in ids):
        return {"absent": f"distances/{group.protocol}.parquet is of other test images"}
    ordered = sorted(ids, key=lambda image_id: (distances[image_id], image_id))
    parts = [list(part) for part in np.array_split(np.asarray(ordered), N_PARTS)]
    rows: list[dict[str, Any]] = []
    lines: list[Line] = []
    own = [model for model, runs in group.models.items() if not runs[0].is_control]
    drawn = {group.chosen, *[model for model in own if model != group.chosen][: MAX_LINES - 1]}
    for model, runs in group.models.items():
        by_part: list[list[float]] = [[] for _ in parts]
        for run in runs:
            is_right = dict(zip(run.test.image_ids, (run.test.labels == run.test.predicted).tolist(), strict=True))
            for values, part in zip(by_part, parts, strict=True):
                values.append(100 * float(np.mean([is_right.get(image_id, False) for image_id in part])))
        rows.append(
            {
                "title": group.title_of(model),
                "cells": [plus_minus(values, 1) for values in by_part],
                "is_chosen": model == group.chosen,
            }
        )
        if model in drawn:
            lines.append(Line(group.title_of(model), [(float(i), float(np.mean(v))) for i, v in enumerate(by_part)]))
    columns = [
        {"name": _NAMES[i], "range": f"{distances[part[0]]:.3f} to {distances[part[-1]]:.3f}", "n": len(part)}
        for i, part in enumerate(parts)
    ]
    plot = line_chart(
        f"Accuracy by distance to train, {group.protocol}",
        ("distance to the nearest train image", "accuracy in %"),
        lines,
        (0.0, 100.0),
        x_names=list(_NAMES),
        size_px=(520, 280),
    )
    return {
        "rows": rows,
        "columns": columns,
        "plot": plot,
        "legend": [line.name for line in lines],
        "features_of": visible(measured.features_of),
    }


_NAMES = ("nearest 20 %", "2nd", "3rd", "4th", "farthest 20 %")


def missing_of(group: Group) -> dict[str, Any]:
    """Accuracy and macro-F1 of each model that reads both modalities, with both and without each."""
    rows: list[dict[str, Any]] = []
    for model, runs in group.models.items():
        have = [run for run in runs if run.missing is not None]
        if not have:
            continue
        cells: list[str] = []
        for kind in ("", "text", "image"):
            answers = [run.test if not kind else (run.missing or {}).get(kind) for run in have]
            present = [each for each in answers if each is not None]
            cells.append(plus_minus([100 * accuracy(each.labels, each.predicted) for each in present], 2))
            cells.append(plus_minus([macro_f1(each.labels, each.predicted) for each in present], 4))
        rows.append({"title": group.title_of(model), "cells": cells, "is_chosen": model == group.chosen})
    if not rows:
        return {"absent": "no run reads both modalities, or missing/*.parquet is not there"}
    return {"rows": rows}
