"""Randomness as a function of what it is for: the same seed, epoch and row give the same number in any order."""

import numpy as np
import numpy.typing as npt

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def uniform(rows: npt.NDArray[np.int64], n_draws: int, *key: int) -> npt.NDArray[np.float64]:
    """(len(rows), n_draws) numbers in [0, 1), each a function of `key`, its row and its column alone.

    SplitMix64 as a hash of a counter: no state, so a batch is drawn at once, and a restart or another order of rows
    changes nothing. Steele et al. 2014, https://doi.org/10.1145/2714064.2660195
    """
    streams = np.arange(1, n_draws + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    counters = _mix(rows.astype(np.uint64) + np.uint64(seed_of(*key)))[:, None]
    return (_mix(counters + streams) >> np.uint64(11)).astype(np.float64) / 2**53


def seed_of(*key: int) -> int:
    """64 bits that differ for keys that differ, also in the order of their numbers."""
    state = 0
    for number in key:  # Python's integers: faster than NumPy for one number, which every step asks for
        state = (state + _GOLDEN + number) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser; arrays wrap around as it wants, where NumPy's scalars would warn."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))
