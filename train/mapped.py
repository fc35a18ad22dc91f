"""Arrays in files that are read and written like memory: what is kept of every row of a dataset."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import UserError

_FLOAT32_BYTES = 2 << 30  # larger arrays are kept in half precision


def precision_of(shape: tuple[int, ...]) -> np.dtype[Any]:
    """The precision in which numbers of this shape are kept: float32, or float16 where that is too large."""
    return np.dtype(np.float32 if 4 * np.prod(shape) <= _FLOAT32_BYTES else np.float16)


def new_array(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, what: str, fix: str = "make room"
) -> np.memmap[Any, np.dtype[Any]]:
    """An array of zeros of `shape` in the new .npy file `path`, whose folder is there.

    Raises `UserError` where the disk cannot hold it: `what` takes the room, `fix` is what to do.
    """
    check_room(path.parent, int(np.prod(shape)) * np.dtype(dtype).itemsize, what, fix)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def check_room(folder: Path, n_bytes: int, what: str, fix: str) -> None:
    """Raise `UserError` where `folder` has no room for `n_bytes`, which `what` takes.

    Beforehand, because a write to a mapped file on a full disk is no error: it ends the process (SIGBUS).
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise UserError(f"{folder} has {size_of(free)} free, and {what} takes {size_of(n_bytes)}", fix)


def size_of(n_bytes: int) -> str:
    """Bytes for people: in GB (1e9), or in MB (1e6) below a hundredth of one."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.2f} MB"
