"""One image as a page shows it: its photograph, a heat map of its patches over it, and its words by their weight."""

import io
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from builders.decode import BadImageError, decode_rgb
from builders.foreign_text import visible
from builders.thumbnail import thumbnail
from train.pixels import PixelConfig, resize_and_crop

SIDE_PX = 224
N_LEVELS = 5
MAX_CHARACTERS = 1500
# From none to the heaviest patch: five colours of matplotlib's "inferno" (CC0), which also grow lighter in grey.
INFERNO = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a `data:` address with its size in CSS pixels."""

    source: str
    width_px: int
    height_px: int


def photograph(data: bytes | None) -> Picture | None:
    """A thumbnail; None without bytes, or where they are no usable image."""
    if data is None:
        return None
    try:
        small = thumbnail(data, SIDE_PX)
    except BadImageError:
        return None
    return Picture(f"data:image/jpeg;base64,{b64encode(small.jpeg).decode()}", small.width_px, small.height_px)


def as_seen(data: bytes | None, pixels: PixelConfig | None) -> Image.Image | None:
    """The photograph resized and cropped as the model sees it: the patches lie on that."""
    if data is None or pixels is None:
        return None
    try:
        image, _ = decode_rgb(data)
    except BadImageError:
        return None
    seen = Image.fromarray(np.asarray(resize_and_crop(image, pixels)))
    return seen.resize(_fitted(seen.size), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> Picture:
    """An image as it is."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return Picture(f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}", image.width, image.height)


def heat_map(weights: npt.NDArray[np.float32], seen: Image.Image | None) -> Picture:
    """`heat_image` for a page."""
    return jpeg(heat_image(weights, seen))


def heat_image(weights: npt.NDArray[np.float32], seen: Image.Image | None) -> Image.Image:
    """(rows, columns) patch weights as colours, each patch a rectangle, over the grey photograph if it is here."""
    share = weights / max(float(weights.max()), 1e-12)
    colours = np.stack(
        [np.interp(share, np.linspace(0, 1, len(INFERNO)), [c[k] for c in INFERNO]) for k in range(3)], axis=-1
    )
    field = Image.fromarray(colours.round().astype(np.uint8))
    rows, columns = weights.shape
    size = seen.size if seen is not None else _fitted((columns, rows))
    field = field.resize(size, Image.Resampling.NEAREST)
    if seen is None:
        return field
    return Image.blend(seen.convert("L").convert("RGB"), field, 0.55)


def patch_weights(row: dict[str, Any]) -> npt.NDArray[np.float32] | None:
    """The (rows, columns) weights of a row of `attention/*.parquet`; None where its patches have no known place."""
    shape = (row["patch_rows"], row["patch_columns"])
    weights = np.asarray(row["patch_weights"], dtype=np.float32)
    return weights.reshape(shape) if shape[0] and shape[0] * shape[1] == len(weights) else None


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text: `level` 1 to N_LEVELS by its share of the heaviest word's weight, 0 for no word."""

    text: str
    level: int


def pieces_of(row: dict[str, Any]) -> tuple[list[Piece], list[str]]:
    """The description in stretches, and its five heaviest words with their weights in per cent."""
    text: str = row["text"]
    spans = list(zip(row["word_starts"], row["word_ends"], row["word_weights"], strict=True))[: row["n_words_read"]]
    heaviest = max((weight for _, _, weight in spans), default=0.0)
    pieces: list[Piece] = []
    end_before = 0
    for start, end, weight in spans:
        if start > MAX_CHARACTERS:
            break
        if start > end_before:
            pieces.append(Piece(visible(text[end_before:start]), 0))
        level = min(N_LEVELS, 1 + int(N_LEVELS * weight / heaviest)) if heaviest > 0 else 0
        pieces.append(Piece(visible(text[start:end]), level))
        end_before = end
    rest = text[end_before:]
    if rest.strip():
        is_unread = len(spans) < len(row["word_starts"])
        pieces.append(
            Piece(f" … ({len(rest):,} characters more, {'not read by the model' if is_unread else 'not shown'})", 0)
        )
    top = sorted(spans, key=lambda span: -span[2])[:5]
    return pieces, [f"“{visible(text[start:end])}” {100 * weight:.1f} %" for start, end, weight in top]


def plain(text: str) -> str:
    """A description without weights, cut where it is very long."""
    shown = visible(text)
    return shown if len(shown) <= MAX_CHARACTERS else f"{shown[:MAX_CHARACTERS].rstrip()} …"


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = SIDE_PX / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
