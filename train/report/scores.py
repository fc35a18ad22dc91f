"""How well each class is told: precision, recall, F1 with support, and which classes are taken for which."""

from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.foreign_text import visible
from train.report.groups import Group, plus_minus
from train.report.runs import Answers
from train.report.svg import matrix

MAX_CLASSES_DRAWN = 40
N_CONFUSIONS = 12


def confusion_of(answers: Answers, n_classes: int) -> npt.NDArray[np.int64]:
    """Counts, (true class, predicted class)."""
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (answers.labels, answers.predicted), 1)
    return counts


def class_scores(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n_classes, 3): precision, recall and F1 per class; 0 where nothing was predicted or labelled so."""
    right = np.diag(counts).astype(np.float64)
    n_predicted, n_labelled = counts.sum(axis=0), counts.sum(axis=1)
    return np.stack(
        [
            right / np.maximum(n_predicted, 1),
            right / np.maximum(n_labelled, 1),
            2 * right / np.maximum(n_predicted + n_labelled, 1),
        ],
        axis=1,
    )


def scores_of(group: Group) -> dict[str, Any]:
    """The chosen model's classes, its confusion matrix over all seeds, and its most frequent confusions."""
    runs = group.chosen_runs
    names = runs[0].class_names
    counts = [confusion_of(run.test, len(names)) for run in runs]
    scores = np.stack([class_scores(each) for each in counts])  # (seeds, classes, 3)
    support = counts[0].sum(axis=1)
    total = np.sum(counts, axis=0)
    occurs = np.flatnonzero(total.sum(axis=0) + total.sum(axis=1))
    rows = [
        {
            "name": names[i],
            "support": int(support[i]),
            "scores": [plus_minus(scores[:, i, k].tolist(), 3) for k in range(3)],
            "f1": mean(scores[:, i, 2].tolist()),
        }
        for i in occurs
    ]
    # As `train/metrics.py`: over the classes that a seed's labels or answers hold, which may differ between seeds.
    held = [each.sum(axis=0) + each.sum(axis=1) > 0 for each in counts]
    macro = [
        plus_minus([float(score[own, k].mean()) for score, own in zip(scores, held, strict=True)], 3) for k in range(3)
    ]
    drawn = _most_confused(total, occurs)
    shares = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    title = (
        f"Confusion matrix of {group.title_of(group.chosen)}, {group.protocol}: "
        f"per cent of each true class, {_seeds(len(runs))}"
    )
    return {
        "rows": rows,
        "macro": macro,
        "n_test": int(support.sum()),
        "n_seeds": len(runs),
        "matrix": matrix(title, [visible(names[i]) for i in drawn], shares[np.ix_(drawn, drawn)].tolist()),
        "n_left_out": len(occurs) - len(drawn),
        "confusions": _confusions(total, names, len(runs)),
    }


def _most_confused(total: npt.NDArray[np.int64], occurs: npt.NDArray[np.int64]) -> list[int]:
    """All classes that occur, or where they are too many to draw, those with the most mistakes, in order of name."""
    mistakes = total.sum(axis=0) + total.sum(axis=1) - 2 * np.diag(total)
    by_mistakes = sorted(occurs.tolist(), key=lambda i: (-int(mistakes[i]), i))
    return sorted(by_mistakes[:MAX_CLASSES_DRAWN])


def _confusions(total: npt.NDArray[np.int64], names: tuple[str, ...], n_seeds: int) -> list[dict[str, Any]]:
    off = total.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:N_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order]
    return [
        {
            "true": names[i],
            "predicted": names[j],
            "n": f"{off[i, j] / n_seeds:.1f}".removesuffix(".0"),
            "share": f"{100 * off[i, j] / max(1, total[i].sum()):.1f} %",
        }
        for i, j in pairs
        if off[i, j]
    ]


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds together"
