"""Where attention pooling looks, on images that nobody picked, and whether that matters: deletion against random."""

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from train import pixel_deletion
from train.attention_maps import N_DRAWS, PERCENTS
from train.calibration import softmax
from train.report.groups import Group
from train.report.maps import as_seen, heat_map, jpeg, patch_weights, pieces_of
from train.report.photographs import Examples
from train.report.runs import FinishedRun
from train.report.svg import Line, line_chart

# What stands in `modality` of deletion/*.parquet, in words.
DELETED = {"image": "patches", "text": "words", "photograph": "patches in the photograph"}
N_MAPS = 6
N_RESAMPLES = 2000


def attention_model(group: Group) -> str | None:
    """The model whose attention is shown: the paper's where it is there, else the first that has any."""
    have = [model for model, runs in group.models.items() if any(run.attention for run in runs)]
    return "attention_pooling" if "attention_pooling" in have else next(iter(have), None)


def shown_rows(group: Group) -> tuple[FinishedRun, list[dict[str, Any]]] | None:
    """The run with the lowest seed and its rows to show: evenly spread over the sampled test images, none picked."""
    model = attention_model(group)
    if model is None:
        return None
    run = min((run for run in group.models[model] if run.attention), key=lambda run: run.seed)
    sampled = [row for row in run.attention or [] if row["is_sampled"]]
    places = np.unique(np.linspace(0, len(sampled) - 1, min(N_MAPS, len(sampled))).round().astype(int))
    return run, [sampled[i] for i in places]


def attention_of_group(group: Group, examples: Examples) -> dict[str, Any]:
    """Cards with a heat map and weighted words, and the deletion test of every model that pools by attention."""
    shown = shown_rows(group)
    if shown is None:
        models = "attention_pooling, learned_query_pooling"
        return {"absent": f"no finished run pools by attention ({models}) what encoders see and read"}
    run, rows = shown
    return {
        "title": group.title_of(run.model),
        "seed": run.seed,
        "cards": [card_of(run, row, examples) for row in rows],
        "n_draws": N_DRAWS,
        "n_pixel_draws": pixel_deletion.N_DRAWS,
        "tests": [test for model, runs in group.models.items() if (test := _deletion(group, model, runs)) is not None],
    }


def card_of(run: FinishedRun, row: dict[str, Any], examples: Examples) -> dict[str, Any]:
    """What the page says of one row of `attention/*.parquet`."""
    at = run.test.image_ids.index(row["image_id"])
    label, predicted = run.class_names[run.test.labels[at]], run.class_names[run.test.predicted[at]]
    found = examples.by_id.get(row["image_id"])
    seen = as_seen(None if found is None else found.photograph, run.pixels)
    weights = patch_weights(row)
    pieces, heaviest = pieces_of(row)
    card: dict[str, Any] = {
        "image_id": row["image_id"],
        "label": label,
        "predicted": predicted,
        "is_right": label == predicted,
        "pieces": pieces,
        "heaviest": heaviest,
        "has_text": bool(row["text"].strip()),
        "photograph": None if seen is None else jpeg(seen),
    }
    if run.test.logits is not None:
        probabilities = softmax(run.test.logits[at : at + 1])[0]
        card["probability"] = f"{100 * probabilities[run.test.labels[at]]:.1f} %"
    if weights is not None:
        peak = np.unravel_index(int(weights.argmax()), weights.shape)
        of_uniform = float(weights.max() / max(float(weights.mean()), 1e-12))
        card |= {
            "heat": heat_map(weights, seen),
            "where": f"row {peak[0] + 1} of {weights.shape[0]}, column {peak[1] + 1} of {weights.shape[1]}",
            "of_uniform": f"{of_uniform:.1f}",
            "class_token": f"{100 * row['class_token_weight']:.1f} %" if row["class_token_weight"] else "",
        }
    return card


def _deletion(group: Group, model: str, runs: list[FinishedRun]) -> dict[str, Any] | None:
    """The test of one model: a row per modality and per cent, and a plot per modality."""
    values: dict[tuple[str, int], dict[str, list[tuple[float, float, float]]]] = defaultdict(lambda: defaultdict(list))
    groups: dict[str, str] = {}
    for run in runs:
        for row in run.deletion or []:
            groups[row["image_id"]] = row["group"]
            values[row["modality"], row["percent"]][row["image_id"]].append(
                (row["before"], row["without_top"], row["without_random"])
            )
    if not values:
        return None
    rows: list[dict[str, Any]] = []
    plots: list[Any] = []
    for modality, what in DELETED.items():
        top_line, random_line, top_band, random_band = [], [], [], []
        before = 0.0
        for place, percent in enumerate(PERCENTS):
            by_image = values.get((modality, percent))
            if not by_image:
                continue
            means = np.asarray([np.mean(each, axis=0) for each in by_image.values()])  # (images, 3), over seeds
            members = [groups[image_id] for image_id in by_image]
            before = float(means[:, 0].mean())
            top, random, extra = means[:, 1], means[:, 2], means[:, 2] - means[:, 1]
            low, high = interval(extra, members)
            rows.append(
                {
                    "modality": modality,
                    "what": f"{percent} % of the {what}",
                    "n": len(means),
                    "cells": [f"{before:.3f}", _with_interval(top, members), _with_interval(random, members)],
                    "extra": f"{extra.mean():+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−"),
                    "verdict": "more than random" if low > 0 else "less than random" if high < 0 else "not told apart",
                }
            )
            for line, band, column in ((top_line, top_band, top), (random_line, random_band, random)):
                aside = -0.05 if line is top_line else 0.05  # intervals would cover each other
                line.append((place + aside, float(column.mean())))
                band.append(interval(column, members))
        if len(top_line) > 1:
            edges = [(top_line[0][0], before), (top_line[-1][0], before)]
            plots.append(
                line_chart(
                    f"{group.title_of(model)}, {group.protocol}: probability of the true class without {what}",
                    (f"{what} deleted", "probability of the true class"),
                    [
                        Line("the heaviest", top_line, top_band, style=1),
                        Line("random ones", random_line, random_band, style=0),
                        Line("nothing", edges, has_markers=False, style=7),
                    ],
                    x_names=[f"{percent} %" for percent in PERCENTS],
                )
            )
    return {"title": group.title_of(model), "rows": rows, "plots": plots}


def interval(values: npt.NDArray[np.float64], groups: list[str]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean over images, whole groups of copies drawn together."""
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(number, weights=values)
    counts = np.bincount(number)
    drawn = np.random.default_rng(0).integers(0, len(counts), (N_RESAMPLES, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _with_interval(values: npt.NDArray[np.float64], groups: list[str]) -> str:
    low, high = interval(values, groups)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"
