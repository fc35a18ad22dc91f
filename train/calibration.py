"""How far probabilities can be trusted: a temperature fitted on validation, ECE, Brier score, NLL, reliability."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

N_BINS = 15  # of Guo et al. 2017, and of most that report an ECE
TEMPERATURE_RANGE = (0.05, 20.0)  # where every validation row is right, the best temperature would be zero

Logits = npt.NDArray[np.floating[Any]]  # (n, n_classes)
Probabilities = npt.NDArray[np.float64]  # (n, n_classes)
Labels = npt.NDArray[np.int64]  # (n,)


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """`exp(z / T) / sum(exp(z / T))` per row, in float64."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    exponentials = np.exp(z)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature in TEMPERATURE_RANGE under which `labels` have the lowest mean NLL.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. The NLL is convex in `1 / T`, and its slope there is
    `mean(E_p[z] - z_label)`: where the slope crosses zero is found by bisection, no step size and no start to choose.
    The prediction does not change, only how sure it is. Raises `ValueError` without rows.
    """
    if not len(logits):
        raise ValueError("a temperature needs at least one row")
    z = np.asarray(logits, dtype=np.float64)
    of_label = z[np.arange(len(z)), labels]

    def slope(inverse: float) -> float:
        return float(np.mean((softmax(z, 1 / inverse) * z).sum(axis=1) - of_label))

    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    if slope(low) >= 0:
        return TEMPERATURE_RANGE[1]
    if slope(high) <= 0:
        return TEMPERATURE_RANGE[0]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


@dataclass(frozen=True, slots=True)
class Bin:
    """The rows whose confidence lies in `(low, high]`: how many, their mean confidence and accuracy; None if none."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(probabilities: Probabilities, labels: Labels, n_bins: int = N_BINS) -> tuple[Bin, ...]:
    """Rows by the probability of the predicted class, in `n_bins` bins of equal width."""
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    bins: list[Bin] = []
    for i in range(n_bins):
        inside = number == i
        n = int(inside.sum())
        means = (float(confidence[inside].mean()), float(is_right[inside].mean())) if n else (None, None)
        bins.append(Bin(i / n_bins, (i + 1) / n_bins, n, *means))
    return tuple(bins)


def ece(probabilities: Probabilities, labels: Labels, n_bins: int = N_BINS) -> float:
    """Expected calibration error: `sum_b n_b / n * |accuracy_b - confidence_b|`, in [0, 1].

    Naeini et al. 2015 (AAAI), of the predicted class, with bins of equal width.
    """
    return sum(
        each.n / len(labels) * abs(each.accuracy - each.confidence)
        for each in reliability(probabilities, labels, n_bins)
        if each.accuracy is not None and each.confidence is not None
    )


def brier(probabilities: Probabilities, labels: Labels) -> float:
    """The mean over rows of `sum_c (p_c - [c is the label])^2`, in [0, 2]: Brier 1950, as he wrote it."""
    target = np.zeros_like(probabilities)
    target[np.arange(len(labels)), labels] = 1.0
    return float(np.square(probabilities - target).sum(axis=1).mean())


def nll(probabilities: Probabilities, labels: Labels) -> float:
    """The mean of `-log p(label)`, in nats; a probability below 1e-300 counts as that."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_label, 1e-300)).mean())
