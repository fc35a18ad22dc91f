"""What a relative path says: whether it is an image, its split and its label."""

import os
from pathlib import PurePosixPath
from posixpath import splitext

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_FILE_BYTES = 512 * 1024**2  # a file or archive entry that claims more is no photograph
SPLITS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}


def is_image_path(path: str) -> bool:
    """Whether a path looks like an image: a known ending, and no part hidden or made by a Mac's archiver."""
    return splitext(path)[1].lower() in IMAGE_SUFFIXES and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Whether a part of a relative path is hidden, or made by a Mac's archiver."""
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in path.split("/"))


def split_and_label(path: str) -> tuple[str, str]:
    """The split and class of `…/train|test|val/<class>/…/file`; without a split folder all is `train`.

    The label is the folder right below the split, or the file's own folder where there is no split; "" if none.
    """
    folders = PurePosixPath(path).parts[:-1]
    for depth, folder in enumerate(folders):
        if folder.lower() in SPLITS:
            below = folders[depth + 1 :]
            return SPLITS[folder.lower()], below[0] if below else ""
    return "train", folders[-1] if folders else ""


def check_size(n_bytes: int) -> None:
    """Raise `OSError` for a file too large to be a photograph, before it is read."""
    if n_bytes > MAX_FILE_BYTES:
        raise OSError(f"it holds {n_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read")


def changed_ns(found: os.stat_result) -> int:
    """When a file was last changed, or put where it is, in nanoseconds since 1970.

    Not the time that it shows alone: `cp -p`, `rsync -a` and `unzip` set that back, and the system's own they cannot.
    """
    return max(found.st_mtime_ns, found.st_ctime_ns)
