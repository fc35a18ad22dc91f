"""What a lesion does to the skin it lies on: pigment, height, gloss and scale."""

from dataclasses import dataclass

import numpy as np

from builders.sample.attributes import Attributes, Colour, SkinTone
from builders.sample.canvas import Canvas, Picture, Plane, Tint, mix, ramp
from builders.sample.lesion_shape import Footprint
from builders.sample.skin import rgb

_PIGMENT: dict[Colour, dict[SkinTone, tuple[int, int, int]]] = {
    "red": {"light": (198, 84, 76), "medium": (172, 62, 54), "dark": (142, 42, 38)},
    "brown": {"light": (122, 78, 52), "medium": (90, 52, 32), "dark": (42, 26, 20)},
    "pale": {"light": (250, 236, 226), "medium": (240, 214, 192), "dark": (206, 176, 154)},
    "violet": {"light": (128, 76, 116), "medium": (106, 54, 96), "dark": (80, 40, 86)},
    "yellow": {"light": (240, 216, 122), "medium": (236, 206, 112), "dark": (226, 196, 106)},
}


@dataclass(slots=True)
class SkinState:
    """The photograph while lesions are laid on it; full-canvas planes, changed in place.

    `relief_mm` is the height of lesions alone; `fineness` scales the skin's own relief (1 where untouched);
    `gloss` is the strength of highlights; `bareness` is how much hair gives way; `cover` is where lesions are.
    """

    picture: Picture
    relief_mm: Plane
    fineness: Plane
    gloss: Plane
    bareness: Plane
    cover: Plane


def paint_lesion(rng: np.random.Generator, state: SkinState, attributes: Attributes, mark: Footprint) -> None:
    """Lay one lesion on the skin."""
    local = Canvas.of(mark.cover.shape[1], mark.cover.shape[0])
    pigment = rgb(*_PIGMENT[attributes.colour][attributes.skin_tone]) * np.float32(rng.uniform(0.95, 1.05))
    mottle = 1 + 0.13 * local.noise(rng, max(0.35, mark.depth_mm * 0.25)) + 0.05 * local.noise(rng, 0.3)
    picture = state.picture[mark.box]
    if attributes.surface in ("domed", "scaly"):  # a raised lesion reddens the skin around it
        blush = rgb(*_PIGMENT["red"][attributes.skin_tone])
        picture = mix(picture, blush, ramp(mark.edge, 1.4, 1.0) * np.float32(0.15))
    if attributes.surface == "flat":
        picture = mix(picture, pigment, mark.cover * np.clip(0.86 * mottle, 0, 1))
    elif attributes.surface == "domed":
        picture = _dome(state, picture, pigment, mark, mottle)
    elif attributes.surface == "scaly":
        picture = _scale(rng, state, picture, pigment, mark, attributes.skin_tone, local)
    elif attributes.surface == "oedematous":
        flare = rgb(*_PIGMENT["red"][attributes.skin_tone])
        picture = _swelling(state, picture, pigment, flare, mark, is_pale=attributes.colour == "pale")
    elif attributes.surface == "fluid":
        picture = mix(picture, pigment, ramp(mark.edge, 2.0, 0.9) * np.float32(0.88))
        clear = picture * np.float32(0.40) + rgb(240, 222, 202) * np.float32(0.52)
        picture = mix(picture, clear, ramp(mark.edge, 0.95, 0.55))
        _raise_dome(state, mark, height=0.50, gloss=1.7, fineness=0.05)
    else:
        picture = mix(picture, rgb(*_PIGMENT["red"][attributes.skin_tone]), ramp(mark.edge, 2.0, 0.9) * np.float32(0.8))
        picture = mix(picture, pigment, ramp(mark.edge, 0.98, 0.60))
        _raise_dome(state, mark, height=0.34, gloss=0.35, fineness=0.1)
    state.picture[mark.box] = picture
    state.cover[mark.box] = np.maximum(state.cover[mark.box], mark.cover)
    state.bareness[mark.box] = np.maximum(state.bareness[mark.box], ramp(mark.edge, 2.0, 1.1))


def _raise_dome(state: SkinState, mark: Footprint, height: float, gloss: float, fineness: float) -> None:
    """A half ellipsoid on the outline, `height` times as high as half the lesion's breadth."""
    dome = np.sqrt(np.clip(1 - mark.edge**2, 0, 1))
    state.relief_mm[mark.box] += np.float32(height * mark.depth_mm) * dome
    state.gloss[mark.box] += np.float32(gloss) * mark.cover
    state.fineness[mark.box] *= 1 - np.float32(1 - fineness) * mark.cover


def _dome(state: SkinState, picture: Picture, pigment: Tint, mark: Footprint, mottle: Plane) -> Picture:
    """Firm and smooth; with an ill-defined border it rises like a hill instead of like a ball."""
    picture = mix(picture, pigment, mark.cover * np.clip(0.85 * mottle, 0, 1))
    if not mark.is_soft:
        _raise_dome(state, mark, height=0.75, gloss=0.90, fineness=0.35)
        return picture
    state.relief_mm[mark.box] += np.float32(0.62 * mark.depth_mm) * np.exp(-((mark.edge / 0.66) ** 2))
    state.gloss[mark.box] += np.float32(0.42) * mark.cover
    state.fineness[mark.box] *= 1 - 0.65 * mark.cover
    return picture


def _scale(
    rng: np.random.Generator,
    state: SkinState,
    picture: Picture,
    pigment: Tint,
    mark: Footprint,
    tone: SkinTone,
    local: Canvas,
) -> Picture:
    """A flat-topped rise under loose white flakes."""
    picture = mix(picture, pigment, mark.cover * np.float32(0.88))
    flakes = local.noise(rng, 0.75) + 0.6 * local.noise(rng, 0.35)
    white = ramp(flakes, 0.05, 0.55) * (ramp(mark.edge, 0.85, 0.20) if mark.is_soft else ramp(mark.edge, 0.97, 0.80))
    silver = rgb(244, 236, 228) if tone != "dark" else rgb(206, 196, 188)
    picture = mix(picture, silver, white * np.float32(0.86))
    plateau = ramp(mark.edge, 1.5, 0.1) if mark.is_soft else ramp(mark.edge, 1.05, 0.75)
    state.relief_mm[mark.box] += np.float32(0.55) * plateau + np.float32(0.16) * white
    state.fineness[mark.box] *= 1 + 0.8 * mark.cover
    return picture


def _swelling(
    state: SkinState, picture: Picture, pigment: Tint, flare: Tint, mark: Footprint, *, is_pale: bool
) -> Picture:
    """A smooth, stretched, flat-topped rise: the middle of a red one is blanched, a pale one has a red flare."""
    if is_pale:
        picture = mix(picture, flare, ramp(mark.edge, 1.5, 1.0) * np.float32(0.5))
    picture = mix(picture, pigment, mark.cover * np.float32(0.85 if is_pale else 0.70))
    if not is_pale:
        picture = mix(
            picture, picture * np.float32(0.55) + rgb(255, 214, 200) * np.float32(0.45), ramp(mark.edge, 0.80, 0.35)
        )
    plateau = ramp(mark.edge, 1.05, 0.55)
    state.relief_mm[mark.box] += np.float32(min(1.9, 0.55 * mark.depth_mm)) * plateau
    state.gloss[mark.box] += 0.50 * mark.cover
    state.fineness[mark.box] *= 1 - 0.85 * mark.cover
    return picture
