"""Find photographs in what is to be published, however they are wrapped: nobody publishes them by mistake."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PLOTS = "assets/"  # PNG and SVG in it are drawn by the card, of numbers
_PLOT_ENDINGS = (".png", ".svg")
_MAGIC = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"II*\x00",  # TIFF, both byte orders
    b"MM\x00*",
    b"PK\x03\x04",  # zip, and with it npz: nobody can tell by its name what is inside
    b"\x1f\x8b",  # gzip
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",  # zstd
)
_INSIDE = ((8, b"WEBP"), (4, b"ftyp"), (128, b"DICM"), (257, b"ustar"))  # offset, mark
_DATA_URI = re.compile(rb"data:image/(?!svg)")
_PIECE = 1024 * 1024


def find_images(folder: Path, paths: list[str]) -> Iterator[str]:
    """Those of `paths` that hold pixels, or may: a column of bytes, an image, a page with images in it, an archive."""
    for path in paths:
        if path.startswith(PLOTS) and path.endswith(_PLOT_ENDINGS):
            continue
        if _holds_images(folder / path):
            yield path


def _holds_images(path: Path) -> bool:
    if path.suffix == ".parquet":
        try:
            return any(_holds_bytes(field.type) for field in pq.read_schema(path))
        except (OSError, ValueError, pa.ArrowException):
            return True  # it is none, and nobody can tell what it is
    with path.open("rb") as file:
        start = file.read(512)
        if start.startswith(_MAGIC) or any(start[at : at + len(mark)] == mark for at, mark in _INSIDE):
            return True
        if path.suffix == ".safetensors":
            return False  # weights: gigabytes that hold no page
        before, piece = b"", start
        while piece:
            if _DATA_URI.search(before + piece):
                return True
            before, piece = piece[-32:], file.read(_PIECE)
    return False


def _holds_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type hold raw bytes, however deep."""
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    is_bytes = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(check(kind) for check in is_bytes)
