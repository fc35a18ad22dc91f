"""Accuracy by distance to train: how much of a test is answered by looking up the nearest training photograph."""

from dataclasses import dataclass

import numpy as np

from builders.audit.batches import batches
from builders.audit.features import Features, Floats
from builders.audit.neighbours import Numbers, squared_distances

MAX_QUERIES = 5_000
N_QUINTILES = 5
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Quintile:
    """A fifth of the test files: those no farther from train than `distance`, and farther than the fifth before."""

    distance: float
    n_files: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class DistanceCurve:
    """How often the nearest train file has the label of a test file: in all, and by fifths from near to far.

    `n_drawn` of the `n_test` files were looked up.
    """

    n_train: int
    n_test: int
    n_drawn: int
    accuracy: float
    quintiles: list[Quintile]


def distance_curve(features: Features, split: str, seed: int) -> DistanceCurve | None:
    """1-nearest-neighbour accuracy of `split` on train by distance; None where one of the two has no labelled file.

    Exact: every file looked up is compared with all of train. So that the work grows with n and not with its square,
    at most 5,000 files are looked up, drawn by `seed`; a fifth's accuracy then has a standard error below 1.6 points.
    """
    labels = np.array([row.label for row in features.rows])
    splits = np.array([row.split for row in features.rows])
    train = np.nonzero((splits == "train") & (labels != ""))[0]
    asked = np.nonzero((splits == split) & (labels != ""))[0]
    if not len(train) or not len(asked):
        return None
    drawn = np.sort(np.random.default_rng(seed).permutation(asked)[:MAX_QUERIES])
    nearest, distance = _nearest(features.vectors[drawn], features.vectors[train])
    is_right = labels[train[nearest]] == labels[drawn]
    limits = np.quantile(distance, np.arange(1, N_QUINTILES) / N_QUINTILES)
    fifth_of = np.searchsorted(limits, distance)
    quintiles = [
        Quintile(
            distance=round(float(distance[fifth_of == fifth].max()), 4),
            n_files=int((fifth_of == fifth).sum()),
            accuracy=round(float(is_right[fifth_of == fifth].mean()), 4),
        )
        for fifth in np.unique(fifth_of)
    ]
    return DistanceCurve(len(train), len(asked), len(drawn), round(float(is_right.mean()), 4), quintiles)


def _nearest(queries: Floats, table: Floats) -> tuple[Numbers, Floats]:
    """For each query the nearest row of `table`, the first among equals, and its distance."""
    nearest = np.empty(len(queries), np.int64)
    for batch in batches(len(queries), _ROWS_AT_ONCE):
        nearest[batch] = squared_distances(queries[batch], table).argmin(axis=1)
    return nearest, np.linalg.norm(queries - table[nearest], axis=1)
