"""Whether probabilities mean what they say: ECE, Brier score and NLL before and after a temperature from validation."""

from typing import Any

import numpy as np

from train.calibration import N_BINS, brier, ece, fit_temperature, nll, reliability, softmax
from train.report.groups import Group, plus_minus
from train.report.runs import FinishedRun
from train.report.svg import reliability_diagram


def calibration_of(group: Group) -> dict[str, Any]:
    """A row per model, and the chosen model's reliability diagrams over all of its seeds."""
    rows: list[dict[str, Any]] = []
    for model, runs in group.models.items():
        numbers = [found for run in runs if (found := _numbers(run)) is not None]
        if numbers:
            columns = {key: [each[key] for each in numbers] for key in numbers[0]}
            cells = [plus_minus(columns[key], 3) for key in _COLUMNS]
            rows.append({"title": group.title_of(model), "cells": cells, "is_chosen": model == group.chosen})
    if not rows:
        return {"absent": "no run holds both its test and its validation logits (validation/*.parquet)"}
    return {"rows": rows, "n_bins": N_BINS, "n_without": len(group.models) - len(rows), "plots": _plots(group)}


_COLUMNS = ("temperature", "ece", "ece_after", "brier", "brier_after", "nll", "nll_after")


def _numbers(run: FinishedRun) -> dict[str, float] | None:
    if run.test.logits is None or run.validation is None or run.validation.logits is None:
        return None
    temperature = fit_temperature(run.validation.logits, run.validation.labels)
    before, after = softmax(run.test.logits), softmax(run.test.logits, temperature)
    labels = run.test.labels
    return {
        "temperature": temperature,
        "ece": ece(before, labels),
        "ece_after": ece(after, labels),
        "brier": brier(before, labels),
        "brier_after": brier(after, labels),
        "nll": nll(before, labels),
        "nll_after": nll(after, labels),
    }


def _plots(group: Group) -> list[dict[str, Any]]:
    """Before and after; every seed has its own temperature, and then all rows are put together."""
    before, after, labels = [], [], []
    for run in group.chosen_runs:
        if run.test.logits is None or run.validation is None or run.validation.logits is None:
            continue
        temperature = fit_temperature(run.validation.logits, run.validation.labels)
        before.append(softmax(run.test.logits))
        after.append(softmax(run.test.logits, temperature))
        labels.append(run.test.labels)
    if not labels:
        return []
    plots: list[dict[str, Any]] = []
    for when, parts in (("before", before), ("after", after)):
        probabilities, expected = np.concatenate(parts), np.concatenate(labels)
        bins = reliability(probabilities, expected)
        name = f"{when} temperature scaling"
        plots.append(
            {
                "caption": f"{name[0].upper()}{name[1:]}",
                "svg": reliability_diagram(
                    f"Reliability of {group.title_of(group.chosen)}, {group.protocol}, {name}: "
                    f"accuracy by confidence in {N_BINS} bins",
                    bins,
                ),
            }
        )
    return plots
