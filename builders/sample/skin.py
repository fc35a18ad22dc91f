"""Bare skin: its tone with mottling and freckles, and its fine relief."""

import numpy as np

from builders.sample.attributes import Site, SkinTone
from builders.sample.canvas import Canvas, Picture, Plane, Tint, mix, ramp

_TONES: dict[SkinTone, tuple[int, int, int]] = {
    "light": (226, 181, 158),
    "medium": (188, 134, 102),
    "dark": (106, 70, 51),
}


def rgb(red: float, green: float, blue: float) -> Tint:
    """A colour given in 0 to 255, as this package computes with it."""
    return np.array([red, green, blue], dtype=np.float32) / 255


def skin_picture(rng: np.random.Generator, canvas: Canvas, tone: SkinTone, site: Site) -> Picture:
    """Skin colour without light and shadow."""
    base = rgb(*_TONES[tone]) * (1 + rng.uniform(-0.035, 0.035, 3).astype(np.float32))
    if site == "palm":  # thicker skin, less melanin
        base = base + (rgb(226, 160, 135) - base) * np.float32(0.12 if tone == "dark" else 0.25)
    blood = 0.030 * canvas.noise(rng, 7) + 0.022 * canvas.noise(rng, 1.6)
    melanin = 0.030 * canvas.noise(rng, 9) + 0.016 * canvas.noise(rng, 0.5)
    picture = base * np.stack([1 - melanin, 1 - melanin - blood, 1 - 1.1 * melanin - blood], axis=-1)
    if site in ("forearm", "trunk") and tone != "dark" and rng.random() < 0.5:
        freckles = ramp(canvas.noise(rng, 0.9), 1.5, 2.1) * np.float32(0.20)
        picture = mix(picture, base * rgb(180, 150, 130), freckles)
    return picture.astype(np.float32)


def skin_relief(rng: np.random.Generator, canvas: Canvas, site: Site) -> Plane:
    """Height in millimetres of pores and skin lines; on the palm, of parallel ridges."""
    height = 0.010 * canvas.noise(rng, 0.24) + 0.020 * canvas.noise(rng, 0.7)
    turn = rng.uniform(0, np.pi)
    warp = 0.9 * canvas.noise(rng, 5)
    if site == "palm":
        bend = 0.012 * (canvas.x_mm**2) * rng.uniform(-1, 1) + 2.2 * canvas.noise(rng, 14)
        across = canvas.x_mm * np.float32(np.cos(turn)) + canvas.y_mm * np.float32(np.sin(turn)) + bend
        return (height * 0.7 + 0.013 * np.sin(across * np.float32(2 * np.pi / 0.8))).astype(np.float32)
    for angle, period_mm in ((turn, 0.9), (turn + rng.uniform(0.9, 1.5), 1.15)):
        across = canvas.x_mm * np.float32(np.cos(angle)) + canvas.y_mm * np.float32(np.sin(angle)) + warp
        height = height - 0.016 * np.abs(np.sin(across * np.float32(np.pi / period_mm)))
    return height.astype(np.float32)


def palm_creases(rng: np.random.Generator, canvas: Canvas) -> Plane:
    """How much of a flexion crease is at each pixel, 0 to 1: three long, bent lines."""
    turn = rng.uniform(0, np.pi)
    along = canvas.x_mm * np.float32(np.cos(turn)) + canvas.y_mm * np.float32(np.sin(turn))
    across = canvas.y_mm * np.float32(np.cos(turn)) - canvas.x_mm * np.float32(np.sin(turn))
    wobble = 0.25 * canvas.noise(rng, 2.5)
    creases = np.zeros_like(along)
    for place_mm in (-11, 1, 12):
        line = place_mm + rng.uniform(-3, 3) + along * rng.uniform(-0.25, 0.25) + along**2 * rng.uniform(-0.012, 0.012)
        creases = np.maximum(creases, ramp(np.abs(across - line.astype(np.float32) + wobble), 0.62, 0.05))
    return creases
