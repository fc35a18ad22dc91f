"""What a relative path says: whether it is an image, its split and its label."""

from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
SPLITS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}


def is_image_path(path: str) -> bool:
    """Whether a path looks like an image: a known ending, and no part hidden or made by a Mac's archiver."""
    parts = PurePosixPath(path)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts.parts)
    return parts.suffix.lower() in IMAGE_SUFFIXES and not hidden


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
