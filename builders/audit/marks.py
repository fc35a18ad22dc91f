"""Watermark candidates: what stands at the same place in many photographs of one size, of one class or of all.

After Dekel et al. 2017 (On the Effectiveness of Visible Watermarks, CVPR): what a collection has in common stays when
its photographs are averaged, and everything else cancels out. Fine structure alone is averaged, so that light from
above or a dark rim of the lens is no mark; a frame, a ruler that never moves, a date or a logo is one. Lettering
stamped on the project's sample photographs was found where at least a fifth of 250 carried it (at 40 % opacity: three
tenths); nothing was found on those without it, nor on HAM10000.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from builders.audit.thumbnails import grey, read_checked
from builders.index import default_workers
from builders.schema import IndexRow
from builders.splits import draw
from builders.workers import WorkerDiedError, ordered_map

MIN_PHOTOGRAPHS = 30
MAX_PHOTOGRAPHS = 250
SIDE_PX = 240
# A mark's average stands out from the photographs by so many standard errors and grey levels, over so large a share of
# the picture; a photograph carries it if its own fine structure correlates with that average there.
MIN_ERRORS = 5.0
MIN_GREY_LEVELS = 1.5
MIN_AREA = 0.0005
MIN_CORRELATION = 0.4
MIN_CARRIERS = 0.1
_BLUR_PX = 4
_MAX_CONTRAST = 24  # grey levels: a strong edge of one photograph counts no more than this
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark on photographs of one size, and of one class or, where `label` is empty, of all.

    `left`, `top`, `right`, `bottom` bound it, as shares of width and height. `n_carriers` of the `n_examined` carry
    it, out of `n_photographs` of the kind; `examples` are paths of carriers.
    """

    label: str
    width_px: int
    height_px: int
    left: float
    top: float
    right: float
    bottom: float
    n_carriers: int
    n_examined: int
    n_photographs: int
    examples: list[str]


@dataclass(frozen=True, slots=True)
class _Trace:
    """A mark on one sample: its bounds, as those of a `Mark`, and the paths of the photographs that carry it."""

    left: float
    top: float
    right: float
    bottom: float
    carriers: list[str]


@dataclass(frozen=True, slots=True)
class Marks:
    """Photographs of a size that fewer than 30 have are not covered: nothing can be said about them this way.

    `n_covered` of `n_photographs` are; `n_looks` counts what was decoded for it, some photographs twice.
    """

    n_photographs: int
    n_covered: int
    n_looks: int
    marks: list[Mark]


def find_marks(images: str, rows: list[IndexRow], seed: int, n_workers: int | None) -> Marks:
    """The marks on a source's photographs, byte copies given once: those on all classes, then class by class.

    A class is looked at by itself because a mark that only some classes bear is a shortcut to the label.
    """
    buckets: dict[tuple[str, int, int], list[IndexRow]] = defaultdict(list)
    for row in rows:
        for label in {"", row.label}:
            buckets[label, row.width_px, row.height_px].append(row)
    kinds = sorted(kind for kind, bucket in buckets.items() if len(bucket) >= MIN_PHOTOGRAPHS)
    samples = [
        sorted(buckets[kind], key=lambda row: draw(seed, "marks", row.image_id))[:MAX_PHOTOGRAPHS] for kind in kinds
    ]
    n_looks = sum(len(sample) for sample in samples)
    n_workers = default_workers(n_looks) if n_workers is None else n_workers
    marks: list[Mark] = []
    found = ordered_map(partial(_examine, images), samples, n_workers, ahead=max(1, n_workers))
    for kind, sample, trace in zip(kinds, samples, found, strict=True):
        if isinstance(trace, WorkerDiedError):
            raise trace
        if trace is not None:
            bounds = trace.left, trace.top, trace.right, trace.bottom
            n_carriers = len(trace.carriers)
            marks.append(Mark(*kind, *bounds, n_carriers, len(sample), len(buckets[kind]), trace.carriers[:5]))
    return Marks(len(rows), sum(len(buckets[kind]) for kind in kinds if not kind[0]), n_looks, marks)


def _examine(images: str, sample: list[IndexRow]) -> _Trace | None:
    """The mark on a sample of photographs of one size; None for no mark."""
    first = grey(read_checked(images, sample[0]), SIDE_PX)
    structure = np.empty((len(sample), first.height, first.width), np.int8)
    total, squares = np.zeros((2, first.height, first.width), np.int64)
    for number, row in enumerate(sample):
        image = grey(read_checked(images, row), SIDE_PX)
        fine = _fine_structure(image if image.size == first.size else image.resize(first.size))
        structure[number] = fine
        total += fine
        squares += fine * fine
    average = total / len(sample)
    error = np.sqrt((squares / len(sample) - average**2) / len(sample))
    is_mark = (np.abs(average) >= MIN_GREY_LEVELS) & (np.abs(average) >= MIN_ERRORS * error)
    is_mark &= _n_neighbours(is_mark) >= 3
    if is_mark.mean() < MIN_AREA:
        return None
    carriers = _correlation(structure[:, is_mark].astype(np.float64), average[is_mark]) >= MIN_CORRELATION
    if carriers.mean() < MIN_CARRIERS:
        return None
    rows, columns = np.nonzero(is_mark.any(axis=1))[0], np.nonzero(is_mark.any(axis=0))[0]
    height, width = is_mark.shape
    return _Trace(
        left=round(int(columns[0]) / width, 3),
        top=round(int(rows[0]) / height, 3),
        right=round((int(columns[-1]) + 1) / width, 3),
        bottom=round((int(rows[-1]) + 1) / height, 3),
        carriers=[row.path for row, carries in zip(sample, carriers, strict=True) if carries],
    )


def _fine_structure(image: Image.Image) -> npt.NDArray[np.int16]:
    """A grey image less its own blur, in grey levels; 0 along the edge, where half of what is blurred is missing."""
    blurred = np.asarray(image.filter(ImageFilter.BoxBlur(_BLUR_PX)), np.int16)
    difference = np.clip(np.asarray(image, np.int16) - blurred, -_MAX_CONTRAST, _MAX_CONTRAST)
    inside = difference[_BLUR_PX:-_BLUR_PX, _BLUR_PX:-_BLUR_PX]
    return np.pad(inside, _BLUR_PX) if inside.size else np.zeros_like(difference)


def _n_neighbours(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many of the eight pixels around each are set; beyond the edge none is."""
    padded = np.pad(mask, 1).astype(np.int64)
    height, width = mask.shape
    around = sum(padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3))
    return np.asarray(around) - mask


def _correlation(structure: Floats, average: Floats) -> Floats:
    """Of each row of pixels with the average."""
    centred = structure - structure.mean(axis=1, keepdims=True)
    reference = average - average.mean()
    length = np.linalg.norm(centred, axis=1) * np.linalg.norm(reference)
    return (centred @ reference) / np.maximum(length, 1e-6)
