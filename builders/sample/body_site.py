"""What lies behind and around the skin: a forearm is a limb on a drape, every other site fills the frame."""

import math
from dataclasses import dataclass

import numpy as np

from builders.sample.attributes import Site
from builders.sample.canvas import Canvas, Plane, Tint, ramp
from builders.sample.skin import rgb

_DRAPES = (rgb(58, 104, 112), rgb(52, 78, 120), rgb(92, 98, 102), rgb(196, 200, 204), rgb(34, 36, 40))


@dataclass(frozen=True, slots=True)
class Outline:
    """Where skin is (`cover`, 0 to 1), how much light reaches it (`light`), and what is seen where it is not."""

    cover: Plane
    light: Plane
    drape: Tint
    half_width_mm: float  # of the limb, across the frame's short side
    is_limb: bool


def body_outline(rng: np.random.Generator, canvas: Canvas, site: Site) -> Outline:
    """A limb along the frame's longer side with the drape at both edges; elsewhere skin to the corners."""
    ones = np.ones_like(canvas.x_mm)
    if site != "forearm":
        return Outline(ones, ones, _DRAPES[0], 20.0, is_limb=False)
    along, across = (canvas.x_mm, canvas.y_mm) if canvas.width_px >= canvas.height_px else (canvas.y_mm, canvas.x_mm)
    half_width_mm = float(rng.uniform(15.2, 16.4))
    taper, tilt = rng.uniform(-0.02, 0.02), rng.uniform(-0.05, 0.05)
    bumps = 0.5 * canvas.noise(rng, 22)
    edge = (
        np.abs(across - along * np.float32(tilt) + bumps * 0.5) - along * np.float32(taper) - np.float32(half_width_mm)
    )
    roundness = np.clip(1 + edge / np.float32(half_width_mm), 0, 1)  # 0 on the axis, 1 at the outline
    light = 0.42 + 0.58 * np.sqrt(np.clip(1.02 - roundness**4, 0.0, 1.0))
    drape = _DRAPES[int(rng.integers(len(_DRAPES)))] * np.float32(rng.uniform(0.85, 1.1))
    return Outline(
        ramp(edge, 0.12, -0.12), light.astype(np.float32), drape.astype(np.float32), half_width_mm, is_limb=True
    )


def drape_picture(rng: np.random.Generator, canvas: Canvas, outline: Outline) -> Tint:
    """Cloth, out of focus, darker beside the limb."""
    folds = 1 + 0.10 * canvas.noise(rng, 6) + 0.05 * canvas.noise(rng, 0.6)
    shadow = 0.75 + 0.25 * math.sqrt(0.5) * folds
    return (outline.drape * (folds * shadow)[..., None]).astype(np.float32)
