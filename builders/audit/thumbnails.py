"""Small grey pictures of every photograph: what near-copies are found by, without keeping the photographs."""

import hashlib
import io
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from builders.decode import decode_rgb, upright
from builders.errors import UserError
from builders.index import default_workers
from builders.schema import IndexRow
from builders.sources import opened
from builders.workers import WorkerDiedError, ordered_map

SIDE_PX = 32


def thumbnails(images: str, rows: list[IndexRow], n_workers: int | None) -> npt.NDArray[np.uint8]:
    """A grey thumbnail of each row's photograph, (n, 32, 32), upright, its sides stretched to a square.

    Raises `UserError` where a photograph is not the one that was indexed.
    """
    n_workers = default_workers(len(rows)) if n_workers is None else n_workers
    pictures = np.zeros((len(rows), SIDE_PX, SIDE_PX), np.uint8)
    ahead = 8 * max(1, n_workers)
    for number, picture in enumerate(ordered_map(partial(_thumbnail, images), rows, n_workers, ahead)):
        if isinstance(picture, WorkerDiedError):
            raise picture
        pictures[number] = picture
    return pictures


def read_checked(images: str, row: IndexRow) -> bytes:
    """The bytes of a row's photograph; `UserError` unless they are those that were indexed."""
    try:
        data = opened(images).read(row.path)
    except OSError as error:
        raise UserError(f"cannot read {row.path}: {error.strerror or error}", "index the photographs again") from error
    if hashlib.sha256(data).hexdigest() != row.image_sha256:
        raise UserError(f"{row.path} is not the file that was indexed", "leave --index out, or make a new index")
    return data


def grey(data: bytes, side_px: int) -> Image.Image:
    """The upright grey image in the bytes of an indexed photograph, its shorter side of `side_px` to twice that.

    A smaller photograph keeps its size.

    A JPEG is decoded at the smallest of libjpeg's scales (1/2, 1/4, 1/8) that is large enough: 0.8 ms instead of 2.0
    for one of 720 × 480, 6 instead of 39 for one of 3000 × 2000. Other formats go through `decode_rgb`.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG":
            image.draft("L", (side_px, side_px))
            decoded = upright(image).convert("L")
        else:
            decoded = decode_rgb(data)[0].convert("L")
    return decoded.reduce(max(1, min(decoded.size) // side_px))


def _thumbnail(images: str, row: IndexRow) -> npt.NDArray[np.uint8]:
    image = grey(read_checked(images, row), 2 * SIDE_PX)
    return np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
