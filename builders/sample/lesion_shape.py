"""Where lesions lie and how far each pixel is inside one."""

import math
from dataclasses import dataclass

import numpy as np

from builders.sample.attributes import DIAMETER_MM, Attributes, Count
from builders.sample.body_site import Outline
from builders.sample.canvas import PX_PER_MM, Canvas, Plane, ramp

_HOW_MANY: dict[Count, tuple[int, int]] = {"single": (1, 1), "few": (3, 4), "many": (11, 15)}
_SLENDERNESS = 4.6  # length over breadth of a linear lesion; more than a 3:2 frame squeezed to a square can undo


@dataclass(frozen=True, slots=True)
class Place:
    """One lesion's centre, half its longest diameter and its turn."""

    x_mm: float
    y_mm: float
    radius_mm: float
    turn: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """One lesion on its crop of the canvas.

    `box` are the crop's rows and columns; `edge` is 0 in the lesion's middle and 1 on its outline, at a ring 0 on the
    crest; `cover` is 1 inside and 0 outside, as soft as the border; `depth_mm` is half the lesion's breadth; `is_soft`
    tells an ill-defined border.
    """

    box: tuple[slice, slice]
    edge: Plane
    cover: Plane
    depth_mm: float
    is_soft: bool


def place_lesions(rng: np.random.Generator, canvas: Canvas, attributes: Attributes, outline: Outline) -> list[Place]:
    """Lesions that neither touch nor leave the skin; of 60 random places the first that is free, else the freest."""
    fewest, most = _HOW_MANY[attributes.count]
    n_lesions = 3 if attributes.size == "medium" and fewest == 3 else int(rng.integers(fewest, most + 1))
    half_width_mm, half_height_mm = canvas.width_px / PX_PER_MM / 2, canvas.height_px / PX_PER_MM / 2
    if outline.is_limb:
        half_width_mm = (
            min(half_width_mm, outline.half_width_mm) if canvas.width_px < canvas.height_px else half_width_mm
        )
        half_height_mm = (
            min(half_height_mm, outline.half_width_mm) if canvas.width_px >= canvas.height_px else half_height_mm
        )
    turn = rng.uniform(0, math.pi)
    places: list[Place] = []
    for _ in range(n_lesions):
        radius_mm = DIAMETER_MM[attributes.size] / 2 * float(rng.uniform(0.94, 1.06))
        margin_mm = radius_mm + 1.5
        reach_x, reach_y = max(half_width_mm - margin_mm, 0.5), max(half_height_mm - margin_mm, 0.5)
        best, best_gap = (0.0, 0.0), -math.inf
        for _ in range(60):
            x, y = float(rng.uniform(-reach_x, reach_x)), float(rng.uniform(-reach_y, reach_y))
            gap = min((math.hypot(x - p.x_mm, y - p.y_mm) - p.radius_mm - radius_mm for p in places), default=99.0)
            if gap > best_gap:
                best, best_gap = (x, y), gap
            if gap > 1.6 + radius_mm * 0.15:
                break
        places.append(Place(*best, radius_mm, turn + float(rng.normal(0, 0.35))))
    return places


def footprint(rng: np.random.Generator, canvas: Canvas, attributes: Attributes, place: Place) -> Footprint:
    """The crop, the distance to the outline and the soft cover of one lesion."""
    box = _crop(canvas, place)
    x = canvas.x_mm[box] - np.float32(place.x_mm)
    y = canvas.y_mm[box] - np.float32(place.y_mm)
    along = x * np.float32(math.cos(place.turn)) + y * np.float32(math.sin(place.turn))
    across = y * np.float32(math.cos(place.turn)) - x * np.float32(math.sin(place.turn))
    radius = place.radius_mm
    depth_mm = radius
    if attributes.shape == "linear":
        depth_mm = radius / _SLENDERNESS
        bent = across + along**2 * np.float32(rng.uniform(-0.25, 0.25) / radius)
        edge = ((np.abs(along) / np.float32(radius)) ** 3 + (np.abs(bent) / np.float32(depth_mm)) ** 3) ** np.float32(
            1 / 3
        )
    else:
        angle = np.arctan2(across, along)
        distance = np.hypot(along, across) / np.float32(radius)
        rim = _outline(rng, angle, attributes.shape == "irregular")
        edge = distance / (1 + (rim - 1) * np.clip(distance / rim, 0, 1))  # round in the middle: no fold there
        if attributes.shape == "annular":
            depth_mm = radius * 0.21
            edge = np.abs(edge - np.float32(0.79)) / np.float32(0.21)
    rough = Canvas.of(x.shape[1], x.shape[0]).noise(rng, max(0.5, depth_mm * 0.3))
    edge = (edge + rough * np.float32(min(0.05, 0.045 / depth_mm)) * edge).astype(np.float32)
    is_soft = attributes.border == "ill_defined"
    softness = _blur(attributes) if is_soft else 0.15 / depth_mm
    return Footprint(box, edge, ramp(edge, 1 + softness, 1 - softness), depth_mm, is_soft)


def _blur(attributes: Attributes) -> float:
    """Half the breadth of an ill-defined border, as a part of half the lesion's: it must survive a small image."""
    if attributes.shape in ("annular", "linear"):
        return 0.90
    return 0.95 if attributes.size == "small" else 0.70


def _outline(rng: np.random.Generator, angle: Plane, is_irregular: bool) -> Plane:
    """The radius at each angle, at most 1: nearly a circle, or with lobes and bays."""
    waves = ((2, 0.04), (3, 0.20), (5, 0.13), (7, 0.04)) if is_irregular else ((2, 0.03), (3, 0.02), (5, 0.012))
    phases = rng.uniform(0, 2 * math.pi, len(waves))
    circle = np.linspace(0, 2 * math.pi, 180, dtype=np.float32)
    radius, longest = np.ones_like(angle), np.ones_like(circle)
    for (n_lobes, height), phase in zip(waves, phases, strict=True):
        radius = radius + np.float32(height) * np.cos(n_lobes * angle + np.float32(phase))
        longest = longest + np.float32(height) * np.cos(n_lobes * circle + np.float32(phase))
    return radius / longest.max()


def _crop(canvas: Canvas, place: Place) -> tuple[slice, slice]:
    reach_px = (place.radius_mm * 1.75 + 1.5) * PX_PER_MM
    column = place.x_mm * PX_PER_MM + canvas.width_px / 2
    row = place.y_mm * PX_PER_MM + canvas.height_px / 2
    rows = slice(max(0, int(row - reach_px)), min(canvas.height_px, int(row + reach_px) + 1))
    columns = slice(max(0, int(column - reach_px)), min(canvas.width_px, int(column + reach_px) + 1))
    return rows, columns
