"""A perceptual hash: the signs of a thumbnail's 63 lowest spatial frequencies, in all eight turns and mirror images.

The DCT hash of Zauner 2010 (Implementation and Benchmarking of Perceptual Image Hash Functions, http://phash.org) with
signs instead of a comparison with the median: turning a picture then flips or moves bits of its hash, so that one DCT
gives all eight hashes exactly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.audit.batches import batches
from builders.audit.thumbnails import SIDE_PX

N_FREQUENCIES = 8  # per direction; the constant term says only how bright a picture is and is left out
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A way to turn a picture: transposed first, then mirrored left to right, then upside down."""

    name: str
    is_transposed: bool
    is_mirrored: bool
    is_upside_down: bool


SYMMETRIES = (
    Symmetry("upright", False, False, False),
    Symmetry("mirrored", False, True, False),
    Symmetry("upside down", False, False, True),
    Symmetry("turned by 180°", False, True, True),
    Symmetry("transposed", True, False, False),
    Symmetry("turned clockwise", True, True, False),
    Symmetry("turned anticlockwise", True, False, True),
    Symmetry("transposed and turned by 180°", True, True, True),
)


def spectra(pictures: npt.NDArray[np.uint8]) -> Floats:
    """The lowest frequencies (n, 8, 8) of pictures (n, 32, 32), vertical by horizontal; the constant term is 0."""
    place, frequency = np.arange(SIDE_PX), np.arange(N_FREQUENCIES)
    dct = np.cos(np.pi * (2 * place[None] + 1) * frequency[:, None] / (2 * SIDE_PX)).astype(np.float32)
    lowest = np.empty((len(pictures), N_FREQUENCIES, N_FREQUENCIES), np.float32)
    for batch in batches(len(pictures), 1024):
        lowest[batch] = dct @ pictures[batch].astype(np.float32) @ dct.T
    lowest[:, 0, 0] = 0
    return lowest


def hashes(lowest: Floats, symmetry: Symmetry) -> Hashes:
    """The hash of each picture as it would be if it were turned by `symmetry`."""
    signs = np.where(np.arange(N_FREQUENCIES) % 2, -1, 1).astype(np.float32)  # odd frequencies change sign in a mirror
    turned = lowest.transpose(0, 2, 1) if symmetry.is_transposed else lowest
    turned = turned * signs[None, None, :] if symmetry.is_mirrored else turned
    turned = turned * signs[None, :, None] if symmetry.is_upside_down else turned
    bits = np.packbits((turned > 0).reshape(len(turned), N_FREQUENCIES**2), axis=1)
    return np.ascontiguousarray(bits).view(np.uint64)[:, 0]


def turn(pictures: npt.NDArray[np.float32], symmetry: Symmetry) -> Floats:
    """Pictures (n, side, side), turned by `symmetry`."""
    turned = pictures.transpose(0, 2, 1) if symmetry.is_transposed else pictures
    turned = turned[:, :, ::-1] if symmetry.is_mirrored else turned
    return turned[:, ::-1] if symmetry.is_upside_down else turned
