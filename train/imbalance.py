"""What to do about classes of unequal size: weights in the loss, shifted logits, or rows drawn evenly."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from builders.errors import choose
from train.config import TrainConfig
from train.data import Rows

Counts = npt.NDArray[np.int64]  # training rows of each class
_EFFECTIVE_BETA = 0.999  # of the values in the paper, the one for thousands of rows per class


@dataclass(frozen=True, slots=True)
class Remedy:
    """What changes in training: the loss of a class is multiplied, its logit shifted, or its rows drawn evenly."""

    weights: npt.NDArray[np.float64] | None = None
    shifts: npt.NDArray[np.float64] | None = None
    is_drawn_evenly: bool = False


def none(counts: Counts) -> Remedy:
    """Every training row counts the same."""
    return Remedy()


def class_weights(counts: Counts) -> Remedy:
    """A class weighs `1 / its rows`, so all classes weigh the same."""
    return Remedy(weights=_mean_one(1 / np.maximum(counts, 1), counts))


def effective_number(counts: Counts) -> Remedy:
    """A class weighs `(1 - b) / (1 - b^n)`: rows beyond the first thousand bring little that is new.

    Class-Balanced Loss, Cui et al. 2019, https://arxiv.org/abs/1901.05555
    """
    weights = (1 - _EFFECTIVE_BETA) / (1 - _EFFECTIVE_BETA ** np.maximum(counts, 1))
    return Remedy(weights=_mean_one(weights, counts))


def logit_adjustment(counts: Counts) -> Remedy:
    """`log p(class)` is added to the logits in training only, so that predictions rank by balanced error.

    Menon et al. 2021, https://arxiv.org/abs/2007.07314 (the loss of their section 5.2, with their tau = 1). A class
    without a training row is taken to have one. Label smoothing asks for rare classes beyond their share, so with it
    the logits without the shift overshoot towards them: leave it at 0.
    """
    return Remedy(shifts=np.log(np.maximum(counts, 1) / max(1, counts.sum())))


def balanced_sampler(counts: Counts) -> Remedy:
    """An epoch draws as many rows as there are, with replacement, each class that has rows equally often on average."""
    return Remedy(is_drawn_evenly=True)


def _mean_one(weights: npt.NDArray[np.float64], counts: Counts) -> npt.NDArray[np.float64]:
    """Scaled so that the mean over training rows is 1: the learning rate keeps its meaning."""
    return weights * counts.sum() / (weights * counts).sum()


IMBALANCE: dict[str, Callable[[Counts], Remedy]] = {
    "balanced_sampler": balanced_sampler,
    "class_weights": class_weights,
    "effective_number": effective_number,
    "logit_adjustment": logit_adjustment,
    "none": none,
}


class Objective:
    """The training loss of a batch that may be computed in parts, and the rows of an epoch."""

    def __init__(self, labels: npt.NDArray[np.int64], train: Rows, n_classes: int, config: TrainConfig) -> None:
        choose("imbalance", config.imbalance, list(IMBALANCE))
        self.labels = labels
        self.train = train
        self.counts = np.bincount(labels[train], minlength=n_classes)
        self.remedy = IMBALANCE[config.imbalance](self.counts)
        self.label_smoothing = config.label_smoothing

    def rows(self, seed: int, epoch: int) -> Rows:
        """The rows of an epoch, before they are put in order: a function of (seed, epoch)."""
        if not self.remedy.is_drawn_evenly:
            return self.train
        chances = 1 / self.counts[self.labels[self.train]]
        rng = np.random.default_rng([seed, epoch, 1])
        return rng.choice(self.train, size=len(self.train), p=chances / chances.sum())

    def weight(self, rows: Rows) -> float:
        """What the loss of `rows` is divided by: how many they are, or the sum of their classes' weights."""
        if self.remedy.weights is None:
            return float(len(rows))
        return float(self.remedy.weights.astype(np.float32)[self.labels[rows]].sum(dtype=np.float64))

    def loss(self, logits: Tensor, rows: Rows, divisor: float) -> Tensor:
        """The summed loss of `rows` over `divisor`, which is the `weight` of the whole batch that they are part of.

        So the losses of all parts add up to `F.cross_entropy` of the whole, also where the last batch is smaller.
        Shape: logits (len(rows), n_classes) -> ()
        """
        targets = torch.from_numpy(self.labels[rows]).to(logits.device, non_blocking=True)
        weights = _like(self.remedy.weights, logits)
        shifts = _like(self.remedy.shifts, logits)
        shifted = logits.float() if shifts is None else logits.float() + shifts
        summed = F.cross_entropy(
            shifted, targets, weight=weights, label_smoothing=self.label_smoothing, reduction="sum"
        )
        return summed / divisor


def _like(values: npt.NDArray[np.float64] | None, logits: Tensor) -> Tensor | None:
    return None if values is None else torch.from_numpy(values.astype(np.float32)).to(logits.device, non_blocking=True)
