"""From what an archive says of a photograph to the path it goes by: `<split>/<label>/<name>`, unique and harmless."""

import re
from collections.abc import Container, Iterable
from pathlib import PurePosixPath

from builders.errors import UserError
from builders.sources.layout import IMAGE_SUFFIXES, SPLITS

# `datasets` takes these words for splits in file names, too:
# https://huggingface.co/docs/hub/datasets-file-names-and-splits
_SPLIT_WORDS = SPLITS | {
    "training": "train",
    "dev": "validation",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_ENCODED = re.compile(r"[/\\\x00-\x1f\x7f]|^\.|%(?=[0-9A-Fa-f]{2})")
MAX_NAME_BYTES = 4096  # of a label or a file name; more is none


def check_names(names: Iterable[str], archive: object) -> None:
    """Raise `UserError` on the first name that is absolute, climbs with `..` or holds a backslash."""
    for name in names:
        slashed = name.replace("\\", "/")
        if slashed.startswith("/") or ".." in PurePosixPath(slashed).parts:
            raise UserError(f"{archive} holds the entry '{name}', which would leave its root; nothing was read")
        if slashed != name:
            raise UserError(
                f"{archive} holds the entry '{name}', whose backslashes are no folders here; nothing was read",
                "unpack it and give the folder, or make it anew with / between folders",
            )


def split_and_folders(name: str) -> tuple[str, list[str]]:
    """The split that the relative path of an archive speaks of, and its folders that speak of none.

    `train-00000-of-00002.parquet` and `default/train/0000.parquet` both hold `train`; "" where no word is a split's.
    """
    path = PurePosixPath(name)
    words = re.split(r"[^a-z0-9]+", path.stem.lower())
    split = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "")
    for folder in reversed(path.parts[:-1]):
        split = split or _SPLIT_WORDS.get(folder.lower(), "")
    return split, [folder for folder in path.parts[:-1] if folder.lower() not in _SPLIT_WORDS]


def without_common(folders: list[list[str]]) -> list[list[str]]:
    """The same lists of folders without those that all of them begin with: what is said of all tells nothing."""
    n_common = 0
    while folders and all(len(each) > n_common for each in folders):
        if len({each[n_common] for each in folders}) > 1:
            break
        n_common += 1
    return [each[n_common:] for each in folders]


def path_part(text: str) -> str:
    """Foreign text as one part of a path: slashes, control characters and a leading dot become `%2F`, `%0A`, `%2E`.

    Different texts stay different; nearly all stay as they are.
    """
    return _ENCODED.sub(lambda match: f"%{ord(match[0]):02X}", text)


def image_name(text: str) -> str:
    """The last part of a path that an archive states for an image, as a file name with an image's ending."""
    name = path_part(re.split(r"[/\\]", text)[-1])
    return name if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES else f"{name}.jpg"


def unique_path(path: str, taken: Container[str], mark: str) -> str:
    """`path`, or where it is taken, the path with `mark` before its ending, which tells it from all others."""
    stem, dot, ending = path.rpartition(".")
    while path in taken:
        stem = f"{stem}~{mark}"
        path = f"{stem}{dot}{ending}"
    return path
