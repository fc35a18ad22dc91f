"""Where photographs come from: a dict of readers, and the one function that picks among them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

from builders.errors import UserError
from builders.sources.folder import FolderSource
from builders.sources.zip import ZipSource


class Source(Protocol):
    """A set of files with relative POSIX paths, to be opened with `with`; `name` says what it is to a person."""

    name: str

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def paths(self) -> Iterator[str]:
        """Relative paths of all image files, sorted by code point."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of one file; `OSError` if it cannot be read."""
        ...

    def size(self, path: str) -> int:
        """The length of one file in bytes; `OSError` if it is not there."""
        ...

    def modified_ns(self, path: str) -> int:
        """When one file was last changed, in nanoseconds since 1970; `OSError` if it is not there."""
        ...


SOURCES: dict[str, type[FolderSource] | type[ZipSource]] = {"folder": FolderSource, "zip": ZipSource}


def open_source(images: str | Path) -> Source:
    """The source behind IMAGES: a folder, or a zip file read in place.

    Raises `UserError` where there is none, or where it is neither.
    """
    path = Path(images)
    if path.is_dir():
        return FolderSource(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        return ZipSource(path)
    if not path.exists():
        raise UserError(f"no such folder or zip file: {path}", "check the path; a relative one starts at this folder")
    raise UserError(f"cannot read images from {path}: it is neither a folder nor a .zip file")
