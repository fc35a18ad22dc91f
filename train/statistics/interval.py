"""An interval; the one over seeds that assumes normal seeds: Student's t; that of a median, which does not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, 95 % unless told otherwise."""

    low: float
    high: float


def t_interval(
    values: Sequence[float], low: float = -math.inf, high: float = math.inf, level: float = 0.95
) -> Interval | None:
    """`mean ± t(level, n - 1) · sd / √n`; None for a single value, which says nothing about chance.

    What the mean cannot be, below `low` or above `high`, is left out of it: the interval covers no less without.

    It covers what another seed would change, not what other test images would.
    Student 1908, "The probable error of a mean", Biometrika 6(1).
    """
    n = len(values)
    if n < 2:
        return None
    half = t_quantile(level, n - 1) * stdev(values) / math.sqrt(n)
    return Interval(max(low, mean(values) - half), min(high, mean(values) + half))


def median_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """From the k-th least to the k-th greatest of `values`, with the greatest k that covers the median often enough.

    At least `level` of such intervals do, however the values are distributed, as long as they are independent. None
    where even the extremes do not: with fewer than six values at 95 %.
    Conover 1999, "Practical Nonparametric Statistics", 3.2.
    """
    ordered, n = sorted(values), len(values)
    n_outside, tail = 0, 0.0  # P(at most that many values below the median), half of what may be missed
    while n_outside < n and tail + math.comb(n, n_outside) / 2**n <= (1 - level) / 2:
        tail += math.comb(n, n_outside) / 2**n
        n_outside += 1
    return Interval(ordered[n_outside - 1], ordered[n - n_outside]) if n_outside else None


def t_quantile(level: float, n_free: int) -> float:
    """The t with `P(|T| <= t) = level` for `n_free` degrees of freedom, by halving an interval."""
    low, high = 0.0, 1.0
    while t_probability(high, n_free) < level:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, n_free) < level else (low, middle)
    return high


def t_probability(t: float, n_free: int) -> float:
    """`P(|T| <= t)` for whole `n_free`, exactly: Abramowitz & Stegun 1964, 26.7.3 (odd) and 26.7.4 (even)."""
    angle = math.atan(t / math.sqrt(n_free))
    cosine = math.cos(angle)
    is_odd = n_free % 2 == 1
    term = cosine if is_odd else 1.0
    total = 0.0
    for k in range(1 if is_odd else 0, n_free - 1, 2):  # the power of the cosine
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total
