"""The bootstrap over test images and seeds at once: copies of a photograph stay together, models stay paired.

Both are drawn again with replacement, independently of each other: every seed met every image, so they are crossed
and not nested. Owen 2007, "The pigeonhole bootstrap", https://arxiv.org/abs/0712.1111. A handful of seeds drawn again
spread too little: see `draw_seeds`.
Whole groups of images: Field & Welsh 2007, "Bootstrapping clustered data", JRSS-B 69(3). Percentile intervals: Efron &
Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Where all models share one `Resamples`, the
difference of two of them is a paired bootstrap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from train.statistics.interval import Interval, t_quantile

N_RESAMPLES = 2000
LEVEL = 0.95
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Resamples:
    """`counts` (n_resamples, n_groups): how often each resample holds each group; `group_of` (n_images,)."""

    counts: npt.NDArray[np.float32]
    group_of: Labels


def draw_groups(groups: Sequence[str], n_resamples: int = N_RESAMPLES, seed: int = 0) -> Resamples:
    """As many groups as there are, drawn with replacement, `n_resamples` times; one `groups` entry per image."""
    group_of = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    n_groups = int(group_of.max()) + 1
    rng = np.random.default_rng([seed, n_groups])
    counts = np.empty((n_resamples, n_groups), dtype=np.float32)  # whole numbers far below 2**24: exact
    for row in counts:
        row[:] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
    return Resamples(counts, group_of)


def draw_seeds(n_seeds: int, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Floats:
    """(n_resamples, n_seeds) weights that sum to one: the share of each seed among `n_seeds` drawn again, spread.

    The mean of n values drawn again has (n - 1) / n of the variance that it should have, and a percentile is of the
    normal distribution where Student's t belongs. Both are made up for by stretching the shares away from 1 / n, by
    `sqrt(n / (n - 1)) * t / 1.96`: of 95 % intervals, 1.6 times for five seeds, 9 times for two; so shares may be
    negative. After the expanded percentile interval of Hesterberg 2014, "What Teachers Should Know about the
    Bootstrap", https://arxiv.org/abs/1411.5279, which moves the percentiles of one sample by as much; here it is the
    seeds that are few, and not the images.
    """
    drawn = np.random.default_rng([seed, n_seeds, 1]).multinomial(n_seeds, [1 / n_seeds] * n_seeds, n_resamples)
    if n_seeds == 1:
        return drawn.astype(np.float64)
    stretch = (
        math.sqrt(n_seeds / (n_seeds - 1)) * t_quantile(LEVEL, n_seeds - 1) / NormalDist().inv_cdf((1 + LEVEL) / 2)
    )
    return 1 / n_seeds + stretch * (drawn - 1) / n_seeds


@dataclass(frozen=True, slots=True)
class Resampled:
    """(n_resamples, n_seeds) accuracy and macro-F1, both in [0, 1]."""

    accuracy: Floats
    macro_f1: Floats


def resample(labels: Labels, predicted: Labels, drawn: Resamples) -> Resampled:
    """Both metrics of every seed on every resample; `labels` (n_images,), `predicted` (n_seeds, n_images).

    A resample is a matrix product: how often it holds a group, times what that group adds to each class's counts. The
    metrics are those of `train/metrics.py`: macro-F1 is over the classes that a resample or its predictions hold.
    Measured on one busy core: 30 models × 5 seeds × 4,002 images × 23 classes × 2,000 resamples in 1.3 s.
    """
    n_classes = int(max(labels.max(), predicted.max())) + 1
    n_groups = drawn.counts.shape[1]

    def by_group(rows: npt.NDArray[np.bool_] | slice, classes: Labels) -> npt.NDArray[np.float32]:
        """(n_groups, n_classes): how many images of each class are among `rows` of the group."""
        cells = drawn.group_of[rows] * n_classes + classes[rows]
        return np.bincount(cells, minlength=n_groups * n_classes).reshape(n_groups, n_classes).astype(np.float32)

    everything = slice(None)
    parts = [by_group(everything, labels)]
    for answers in predicted:
        parts += [by_group(everything, answers), by_group(labels == answers, labels)]
    counted = drawn.counts @ np.concatenate(parts, axis=1)  # in one product: several times faster than in many
    n_labelled, *others = np.split(counted.astype(np.float64), len(parts), axis=1)  # (n_resamples, n_classes) each
    accuracy, macro_f1 = np.empty((2, len(drawn.counts), len(predicted)))
    for seed, (n_predicted, n_right) in enumerate(zip(others[::2], others[1::2], strict=True)):
        n_either = n_labelled + n_predicted
        occurs = n_either > 0
        f1 = 2 * n_right / np.where(occurs, n_either, 1)
        accuracy[:, seed] = n_right.sum(axis=1) / n_labelled.sum(axis=1)
        macro_f1[:, seed] = f1.sum(axis=1) / occurs.sum(axis=1)
    return Resampled(accuracy, macro_f1)


def interval(values: Floats, seed_weights: Floats, least: float = -math.inf, most: float = math.inf) -> Interval:
    """The 95 % interval of the mean over drawn seeds; `values` and `seed_weights` (n_resamples, n_seeds).

    No end is below `least` or above `most`, which is what the mean itself can be.
    """
    ends = np.quantile((values * seed_weights).sum(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = ends.clip(least, most).tolist()
    return Interval(low, high)
