"""One photograph from a seed and a number: draw what is seen, render it, encode it as a camera does."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.sample.attributes import MORPHOLOGIES, Attributes, draw_attributes
from builders.sample.body_site import Outline, body_outline, drape_picture
from builders.sample.canvas import PX_PER_MM, SHORT_SIDE_MM, Canvas, Picture, Plane, mix
from builders.sample.hair import hair_cover
from builders.sample.lesion_paint import SkinState, paint_lesion
from builders.sample.lesion_shape import footprint, place_lesions
from builders.sample.light import photograph, shade
from builders.sample.skin import palm_creases, rgb, skin_picture, skin_relief

# Width and height in pixels with their frequency: DermNet's 720x480 dominates.
_SIZES = (((720, 480), 0.70), ((480, 720), 0.10), ((480, 480), 0.10), ((1024, 768), 0.10))
_TURNED = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class Photograph:
    """One rendered photograph: its JPEG file and the truth about it.

    `orientation` is the EXIF tag's value: 1 where pixels are stored upright, else they are stored turned.
    `cover` is where lesions are on the upright picture, see `Rendering`.
    """

    jpeg: bytes
    attributes: Attributes
    n_lesions: int
    orientation: int
    cover: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture, and what its attributes do not say of it.

    `cover` is (32, 32): how much of each of 32 x 32 equal parts of the picture is lesion, 0 to 255.
    """

    image: Image.Image
    n_lesions: int
    cover: NDArray[np.uint8]


def render_photograph(seed: int, number: int) -> Photograph:
    """Photograph `number` of `seed`; classes come in turn, every tenth is stored turned."""
    rng = np.random.default_rng([seed, number])
    names = list(MORPHOLOGIES)
    attributes = draw_attributes(rng, names[number % len(names)])
    size_px = _SIZES[int(rng.choice(len(_SIZES), p=[share for _, share in _SIZES]))][0]
    rendering = render_image(rng, attributes, size_px)
    orientation = (6, 8, 3)[number // 10 % 3] if number % 10 == 3 else 1
    jpeg = _encode(rng, rendering.image, orientation)
    return Photograph(jpeg, attributes, rendering.n_lesions, orientation, rendering.cover)


def render_image(rng: np.random.Generator, attributes: Attributes, size_px: tuple[int, int]) -> Rendering:
    """A picture of these attributes."""
    scale = SHORT_SIDE_MM * PX_PER_MM / min(size_px)
    canvas = Canvas.of(round(size_px[0] * scale), round(size_px[1] * scale))
    outline = body_outline(rng, canvas, attributes.site)
    state = SkinState(
        picture=skin_picture(rng, canvas, attributes.skin_tone, attributes.site),
        relief_mm=np.zeros_like(canvas.x_mm),
        fineness=np.ones_like(canvas.x_mm),
        gloss=np.full_like(canvas.x_mm, 0.10),
        bareness=np.zeros_like(canvas.x_mm),
        cover=np.zeros_like(canvas.x_mm),
    )
    relief = skin_relief(rng, canvas, attributes.site)
    if attributes.site == "palm":
        creases = palm_creases(rng, canvas)
        state.picture = mix(state.picture, state.picture * rgb(205, 160, 150), creases * np.float32(0.8))
        relief = relief - np.float32(0.12) * creases
    places = place_lesions(rng, canvas, attributes, outline)
    for place in places:
        paint_lesion(rng, state, attributes, footprint(rng, canvas, attributes, place))
    picture = shade(rng, state.picture, state.relief_mm + relief * state.fineness, state.gloss)
    picture = _with_hair(rng, canvas, attributes, picture, state.bareness)
    picture = _with_drape(rng, canvas, outline, picture)
    cover = Image.fromarray((state.cover * 255).astype(np.uint8)).resize((32, 32), Image.Resampling.BOX)
    image = photograph(rng, canvas, picture).resize(size_px, Image.Resampling.BICUBIC)
    return Rendering(image, len(places), np.asarray(cover))


def _with_hair(
    rng: np.random.Generator, canvas: Canvas, attributes: Attributes, picture: Picture, bareness: Plane
) -> Picture:
    """Hair lies over skin and lesion, parted around the lesion so that it can be seen."""
    if attributes.site == "palm":
        return picture
    hair = hair_cover(rng, canvas, attributes.site) * (1 - np.float32(0.92) * bareness)
    shade_of_hair = rgb(70, 48, 34) if attributes.skin_tone == "light" else rgb(26, 20, 18)
    return mix(picture, shade_of_hair, hair * np.float32(0.9 if attributes.site == "scalp" else 0.6))


def _with_drape(rng: np.random.Generator, canvas: Canvas, outline: Outline, picture: Picture) -> Picture:
    if not outline.is_limb:
        return picture
    return mix(drape_picture(rng, canvas, outline), picture * outline.light[..., None], outline.cover)


def _encode(rng: np.random.Generator, image: Image.Image, orientation: int) -> bytes:
    """A JPEG file; with an orientation other than 1 the pixels are turned and EXIF says how to turn them back."""
    quality = int(rng.integers(84, 94))
    buffer = io.BytesIO()
    if orientation == 1:
        image.save(buffer, "JPEG", quality=quality)
    else:
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        image.transpose(_TURNED[orientation]).save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()
