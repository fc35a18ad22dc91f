"""All pairs of 64-bit hashes within a few bits of each other, without comparing all pairs.

Multi-index hashing, Norouzi, Punjani and Fleet 2012, https://arxiv.org/abs/1307.2982: hashes at most r bits apart
agree to r // 4 bits in at least one of their four 16-bit quarters, so those are looked up in a table per quarter.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from builders.audit.phash import Hashes

N_QUARTERS = 4
QUARTER_BITS = 16
MAX_CANDIDATES = 2_000_000  # compared at once: 48 MB
Numbers = npt.NDArray[np.int64]


def pairs_within(queries: Hashes, table: Hashes, max_bits: int) -> tuple[Numbers, Numbers]:
    """Numbers (of queries, of table) of all pairs that differ in at most `max_bits` bits, each once, sorted."""
    found: list[Numbers] = [np.empty(0, np.int64)]
    for quarter in range(N_QUARTERS):
        asked, listed = _quarter(queries, quarter), _quarter(table, quarter)
        for query, entry in _candidates(asked, listed, max_bits // N_QUARTERS):
            is_near = np.bitwise_count(queries[query] ^ table[entry]) <= max_bits
            found.append(query[is_near] * len(table) + entry[is_near])
    query, entry = np.divmod(np.unique(np.concatenate(found)), max(1, len(table)))
    return query, entry


def _quarter(hashes: Hashes, quarter: int) -> Numbers:
    return ((hashes >> np.uint64(QUARTER_BITS * quarter)) & np.uint64(2**QUARTER_BITS - 1)).astype(np.int64)


def _candidates(queries: Numbers, table: Numbers, max_bits: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs whose quarters differ in at most `max_bits` bits, in pieces of at most about `MAX_CANDIDATES`."""
    order = np.argsort(table, kind="stable")
    starts = np.searchsorted(table[order], np.arange(2**QUARTER_BITS + 1))
    for flipped in _masks(max_bits):
        first, last = starts[queries ^ flipped], starts[(queries ^ flipped) + 1]
        n_entries = last - first
        piece_of = np.cumsum(n_entries) // MAX_CANDIDATES
        for piece in np.unique(piece_of[n_entries > 0]):
            asking = np.nonzero((piece_of == piece) & (n_entries > 0))[0]
            counts = n_entries[asking]
            steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            yield np.repeat(asking, counts), order[np.repeat(first[asking], counts) + steps]


def _masks(max_bits: int) -> list[int]:
    """All 16-bit numbers with at most `max_bits` bits set."""
    return [sum(1 << bit for bit in bits) for n in range(max_bits + 1) for bits in combinations(range(QUARTER_BITS), n)]
