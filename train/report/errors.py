"""The hardest errors of the chosen model: test images that it takes most surely for something else."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.foreign_text import visible
from train.calibration import softmax
from train.report.explained import card_of
from train.report.groups import Group
from train.report.maps import photograph, plain
from train.report.photographs import Examples

N_ERRORS = 12


@dataclass(frozen=True, slots=True)
class HardError:
    """One test image: its true class, mean probabilities over seeds, highest first, and how many seeds are wrong."""

    image_id: str
    label: str
    probabilities: list[tuple[str, float]]
    of_label: float
    n_wrong: int
    n_seeds: int


def hardest_errors(group: Group) -> list[HardError] | None:
    """Images whose mean probability over seeds is highest for a wrong class, the surest first; None without logits."""
    runs = [run for run in group.chosen_runs if run.test.logits is not None]
    if not runs:
        return None
    ids, labels = runs[0].test.image_ids, runs[0].test.labels
    runs = [run for run in runs if run.test.image_ids == ids]
    means = np.mean([softmax(run.test.logits) for run in runs if run.test.logits is not None], axis=0)
    wrong = np.flatnonzero(means.argmax(axis=1) != labels)
    order = sorted(wrong.tolist(), key=lambda i: (-float(means[i].max()), ids[i]))[:N_ERRORS]
    names = runs[0].class_names
    return [
        HardError(
            image_id=ids[i],
            label=names[labels[i]],
            probabilities=[(names[c], float(means[i, c])) for c in np.argsort(-means[i], kind="stable")[:3]],
            of_label=float(means[i, labels[i]]),
            n_wrong=sum(int(run.test.predicted[i] != run.test.labels[i]) for run in runs),
            n_seeds=len(runs),
        )
        for i in order
    ]


def errors_of(group: Group, examples: Examples, distances: dict[str, float] | None) -> dict[str, Any]:
    """A card per hardest error, with its heat map where the chosen model pools by attention."""
    errors = hardest_errors(group)
    if errors is None:
        return {"absent": "the predictions of the chosen model hold no usable logits"}
    if not errors:
        return {"absent": "the chosen model makes no error on the test images"}
    explained = {
        row["image_id"]: (run, row)
        for run in sorted(group.chosen_runs, key=lambda run: -run.seed)
        for row in run.attention or []
    }
    cards: list[dict[str, Any]] = []
    for error in errors:
        found = examples.by_id.get(error.image_id)
        card: dict[str, Any] = {
            "image_id": error.image_id,
            "label": visible(error.label),
            "probabilities": [(visible(name), f"{100 * p:.1f} %") for name, p in error.probabilities],
            "of_label": f"{100 * error.of_label:.1f} %",
            "n_wrong": error.n_wrong,
            "n_seeds": error.n_seeds,
            "distance": f"{distances[error.image_id]:.3f}" if distances and error.image_id in distances else "",
            "photograph": photograph(None if found is None else found.photograph),
            "text": None if found is None else plain(found.text),
        }
        if error.image_id in explained:
            about = card_of(*explained[error.image_id], examples)
            card |= {key: about[key] for key in ("heat", "pieces") if about.get(key)}
            card["photograph"] = about.get("photograph") or card["photograph"]
        cards.append(card)
    return {"cards": cards}
