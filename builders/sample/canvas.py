"""The pixel grid in millimetres, and smooth random fields on it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating[Any]]  # (height, width), float32 in fact: numpy's stubs widen it at each operation
Picture = NDArray[np.floating[Any]]  # (height, width, 3), the same; 0 to 1, as displays count
Tint = NDArray[np.floating[Any]]  # (3,) or (height, width, 3)
SHORT_SIDE_MM = 40.0  # the camera is always at the same distance
PX_PER_MM = 8.0  # 320 px on the short side; the photograph is enlarged from that, which also gives a lens's softness


@dataclass(frozen=True, slots=True)
class Canvas:
    """One photograph's pixels and the millimetres they show; the origin is the centre, y points down."""

    width_px: int
    height_px: int
    x_mm: Plane
    y_mm: Plane

    @classmethod
    def of(cls, width_px: int, height_px: int) -> "Canvas":
        """A canvas of this many pixels."""
        x_mm = (np.arange(width_px, dtype=np.float32) - (width_px - 1) / 2) / PX_PER_MM
        y_mm = (np.arange(height_px, dtype=np.float32) - (height_px - 1) / 2) / PX_PER_MM
        return cls(width_px, height_px, *np.meshgrid(x_mm, y_mm))

    def noise(self, rng: np.random.Generator, cell_mm: float) -> Plane:
        """Smooth noise of mean 0 and standard deviation about 0.7, with features of `cell_mm`."""
        columns = max(2, math.ceil(self.width_px / PX_PER_MM / cell_mm))
        rows = max(2, math.ceil(self.height_px / PX_PER_MM / cell_mm))
        grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
        return np.asarray(grid.resize((self.width_px, self.height_px), Image.Resampling.BICUBIC))


def ramp(value: Plane, start: float, end: float) -> Plane:
    """0 below `start`, 1 above `end`, smooth between; `start > end` falls instead of rising."""
    t = np.clip((value - np.float32(start)) / np.float32(end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(picture: Picture, colour: Tint, amount: Plane) -> Picture:
    """Blend `colour` (3 numbers or a picture) into `picture`, as much as `amount` says at each pixel."""
    return picture + (colour - picture) * amount[..., None]
