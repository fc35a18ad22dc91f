"""Hair over the skin: dense strands on the scalp, few on the forearm, hardly any on the trunk, none on the palm."""

import math

import numpy as np
from PIL import Image, ImageDraw

from builders.sample.attributes import Site
from builders.sample.canvas import PX_PER_MM, Canvas, Plane

_PER_CM2: dict[Site, float] = {"forearm": 2.0, "trunk": 0.4, "scalp": 20.0, "palm": 0.0}
_LENGTH_MM: dict[Site, tuple[float, float]] = {"forearm": (5, 11), "trunk": (2, 5), "scalp": (14, 30), "palm": (1, 2)}


def hair_cover(rng: np.random.Generator, canvas: Canvas, site: Site) -> Plane:
    """How much of a pixel is hair, 0 to 1. Strands bend and run roughly one way, as hair does."""
    area_cm2 = canvas.width_px * canvas.height_px / (PX_PER_MM * 10) ** 2
    n_strands = int(_PER_CM2[site] * area_cm2 * rng.uniform(0.85, 1.15))
    mask = Image.new("L", (canvas.width_px, canvas.height_px), 0)
    draw = ImageDraw.Draw(mask)
    heading = rng.uniform(0, 2 * math.pi)
    shortest, longest = _LENGTH_MM[site]
    for _ in range(n_strands):
        x, y = rng.uniform(-20, canvas.width_px + 20), rng.uniform(-20, canvas.height_px + 20)
        angle, bend = heading + rng.normal(0, 0.28), rng.normal(0, 0.10)
        step_px = rng.uniform(shortest, longest) * PX_PER_MM / 6
        points = [(x, y)]
        for _ in range(6):
            x, y, angle = x + step_px * math.cos(angle), y + step_px * math.sin(angle), angle + bend
            points.append((x, y))
        ink, width_px = int(rng.uniform(150, 255)), 2 if site == "scalp" and rng.random() < 0.35 else 1
        draw.line(points, fill=ink, width=width_px)
    return np.asarray(mask, dtype=np.float32) / np.float32(255)
