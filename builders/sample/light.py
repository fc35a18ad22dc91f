"""Light and camera: shading from height, highlights, flash falloff and sensor noise."""

import math

import numpy as np
from PIL import Image

from builders.sample.canvas import PX_PER_MM, Canvas, Picture, Plane


def shade(rng: np.random.Generator, picture: Picture, height_mm: Plane, gloss: Plane) -> Picture:
    """Lambert shading and a Blinn highlight under one lamp; flat skin keeps its colour.

    Blinn 1977, Models of light reflection for computer synthesized pictures, https://doi.org/10.1145/563858.563893
    """
    slope_y, slope_x = np.gradient(height_mm, np.float32(1 / PX_PER_MM))
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.75, 0.95)
    lamp = np.array(
        [math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)]
    )
    half = lamp + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    length = np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (np.float32(lamp[2]) - np.float32(lamp[0]) * slope_x - np.float32(lamp[1]) * slope_y) / length
    mirror = np.clip(
        (np.float32(half[2]) - np.float32(half[0]) * slope_x - np.float32(half[1]) * slope_y) / length, 0, 1
    )
    ambient = 0.42
    wrap = np.float32(0.35)  # light that wanders under the skin softens the shadow side
    diffuse = ambient + (1 - ambient) * np.clip(facing + wrap, 0, None) / (np.float32(lamp[2]) + wrap)
    mirror8 = mirror * mirror
    mirror8 *= mirror8
    mirror8 *= mirror8
    highlight = gloss * mirror8**6
    return picture * diffuse[..., None] + highlight[..., None] * np.float32(0.55)


def photograph(rng: np.random.Generator, canvas: Canvas, picture: Picture) -> Image.Image:
    """What the camera stores: flash falloff, white balance and grain."""
    reach = math.hypot(canvas.width_px, canvas.height_px) / PX_PER_MM / 2
    off_x, off_y = rng.uniform(-6, 6, 2)
    distance = ((canvas.x_mm - np.float32(off_x)) ** 2 + (canvas.y_mm - np.float32(off_y)) ** 2) / np.float32(reach**2)
    flash = (1.05 - np.float32(rng.uniform(0.16, 0.34)) * distance) * np.float32(rng.uniform(0.95, 1.04))
    balance = 1 + rng.uniform(-0.025, 0.025, 3).astype(np.float32)
    grain = rng.standard_normal((canvas.height_px, canvas.width_px), dtype=np.float32) * np.float32(0.011)
    exposed = picture * flash[..., None] * balance + grain[..., None]
    return Image.fromarray((np.clip(exposed, 0, 1) * 255).astype(np.uint8))
