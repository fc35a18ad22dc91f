"""A thumbnail of a photograph for the pages that are written here: small, upright, and without its metadata."""

import io
from dataclasses import dataclass

from PIL import Image

from builders.decode import decode_rgb

QUALITY = 80


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG of the upright photograph, without anything that the source's file said of itself."""

    width_px: int
    height_px: int
    jpeg: bytes


def thumbnail(data: bytes, size_px: int) -> Thumbnail:
    """A JPEG of at most `size_px` on its longer side. Raises `BadImageError` where the bytes are no usable image."""
    image, _ = decode_rgb(data)
    image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    image.info.clear()  # comments and profiles of the source would be written too
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(image.width, image.height, jpeg.getvalue())
