"""Near-copies: photographs that look the same after saving again, resizing, brightening, mirroring or turning."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.audit.batches import batches
from builders.audit.config import MAX_HAMMING, MIN_CORRELATION
from builders.audit.hamming import Numbers, pairs_within
from builders.audit.phash import SYMMETRIES, Floats, Symmetry, hashes, spectra, turn

BLANK_DEVIATION = 2.0  # grey levels: what varies less shows nothing, and the signs of its frequencies are noise


@dataclass(frozen=True, slots=True)
class NearCopy:
    """Two pictures by number, `first < second`, the correlation of their thumbnails, and how the first was turned."""

    first: int
    second: int
    correlation: float
    symmetry: str


def blank_pictures(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which pictures (n, side, side) show next to nothing."""
    deviation = np.empty(len(pictures), np.float32)
    for batch in batches(len(pictures), 1024):
        deviation[batch] = pictures[batch].std(axis=(1, 2))
    return deviation < BLANK_DEVIATION


def near_copies(pictures: npt.NDArray[np.uint8]) -> list[NearCopy]:
    """All near-copies among thumbnails (n, 32, 32), sorted: near by their hash, and checked by correlation.

    The hash alone takes every dark spot on light skin for the same picture; the correlation tells them apart.
    """
    shown = np.nonzero(~blank_pictures(pictures))[0]
    lowest = spectra(pictures[shown])
    upright = hashes(lowest, SYMMETRIES[0])
    best: dict[tuple[int, int], NearCopy] = {}
    for symmetry in SYMMETRIES:
        first, second = pairs_within(hashes(lowest, symmetry), upright, MAX_HAMMING)
        is_ordered = first < second  # the other half is the same pairs, turned back
        first, second = shown[first[is_ordered]], shown[second[is_ordered]]
        correlation = _correlation(pictures, first, second, symmetry)
        for number in np.nonzero(correlation >= MIN_CORRELATION)[0]:
            pair = NearCopy(
                int(first[number]), int(second[number]), round(float(correlation[number]), 4), symmetry.name
            )
            known = best.get((pair.first, pair.second))
            if known is None or pair.correlation > known.correlation:
                best[pair.first, pair.second] = pair
    return [best[key] for key in sorted(best)]


def _correlation(pictures: npt.NDArray[np.uint8], first: Numbers, second: Numbers, symmetry: Symmetry) -> Floats:
    """Pearson's correlation of the pixels of each pair, the first turned by `symmetry`."""
    correlation = np.empty(len(first), np.float32)
    for batch in batches(len(first), 4096):
        turned = turn(pictures[first[batch]].astype(np.float32), symmetry)
        correlation[batch] = np.einsum("nij,nij->n", _normal(turned), _normal(pictures[second[batch]]))
    return correlation


def _normal(pictures: npt.NDArray[np.uint8] | Floats) -> Floats:
    """Pictures with mean 0 and length 1."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return centred / np.sqrt(np.einsum("nij,nij->n", centred, centred))[:, None, None]
