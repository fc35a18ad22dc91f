"""Which kind of source an address or a folder is: told by names alone, so that the Hub's folders are told alike."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from builders.errors import UserError
from builders.sources.folder import files_below
from builders.sources.layout import is_hidden, is_image_path

ARCHIVES: dict[str, str] = {".parquet": "parquet", ".tar": "webdataset", ".zip": "zip"}  # ending -> kind
_UNPACK = {  # of a tar that is compressed as a whole, by ending
    ".tar.gz": "gunzip -k",
    ".tgz": "gunzip -k",
    ".tar.xz": "unxz -k",
    ".tar.bz2": "bunzip2 -k",
    ".tar.zst": "unzstd",
}
_HUB = re.compile(r"^hf:/+")  # a Path folds the two slashes into one


def is_on_hub(images: str | Path) -> bool:
    """Whether this is an address on the Hub, `hf://…`."""
    return _HUB.match(str(images)) is not None


def hub_address(images: str | Path) -> str:
    """`hf://…` with its two slashes, which a `Path` loses."""
    return _HUB.sub("hf://", str(images))


def kind_of(images: str | Path) -> tuple[str, str | Path]:
    """The kind of source (a key of SOURCES) behind IMAGES, and what its class opens: for a folder, maybe a file in it.

    Raises `UserError` where there is nothing, or nothing that is known.
    """
    if is_on_hub(images):
        return "hub", hub_address(images)
    path = Path(images)
    if path.is_dir():
        kind, archive = kind_of_files(files_below(path), path)
        return kind, path / archive
    unpack = next((command for ending, command in _UNPACK.items() if path.name.lower().endswith(ending)), None)
    if unpack:
        raise UserError(f"cannot read {path} in place: it is compressed as a whole", f"{unpack} '{path}'")
    kind = kind_of_archive(path.name)
    if kind and (path.is_file() or (kind == "webdataset" and "{" in path.name)):
        return kind, path
    if not path.exists():
        raise UserError(
            f"no such folder, .zip, .parquet or .tar file: {path}",
            "check the path; a relative one starts at this folder, one on the Hub is hf://datasets/OWNER/NAME",
        )
    raise UserError(f"cannot read images from {path}: it is neither a folder nor a .zip, .parquet or .tar file")


def kind_of_archive(name: str) -> str:
    """The kind of source that a file's ending promises, "" for none."""
    return ARCHIVES.get(PurePosixPath(name).suffix.lower(), "")


def kind_of_files(names: Iterable[str], where: object) -> tuple[str, str]:
    """The kind of source that a folder with these files is, and the one file to open in it, "" for the folder.

    A folder with an image in it is a folder of images, whatever else it holds. One with archives of several kinds, or
    with several zip files, is a `UserError`: they would hide each other.
    """
    archives: dict[str, list[str]] = {}
    for name in names:
        if is_image_path(name):
            return "folder", ""
        kind = kind_of_archive(name)
        if kind and not is_hidden(name):
            archives.setdefault(kind, []).append(name)
    if not archives:
        return "folder", ""
    firsts = sorted(min(names) for names in archives.values()) if len(archives) > 1 else sorted(archives.get("zip", ()))
    if len(firsts) > 1:
        raise UserError(f"{where} holds {firsts[0]} and {firsts[1]}: which one?", f"{where}/{firsts[0]}")
    kind, files = archives.popitem()
    return kind, files[0] if kind == "zip" else ""
