"""Where photographs come from: a dict of readers, and the one function that picks among them."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

from builders.sources.kinds import is_on_hub, kind_of


class Source(Protocol):
    """A set of files with relative POSIX paths, to be opened with `with`; `name` says what it is to a person.

    Threads may share it; other processes open it again by `pinned(images)`.
    """

    name: str

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def paths(self) -> Iterator[str]:
        """Relative paths of all image files, each once: sorted, or in the order in which they are best read."""
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


SOURCES: dict[str, str] = {
    "folder": "builders.sources.folder:FolderSource",
    "hub": "builders.sources.hub:HubSource",
    "parquet": "builders.sources.parquet:ParquetSource",
    "webdataset": "builders.sources.webdataset:WebDatasetSource",
    "zip": "builders.sources.zip:ZipSource",
}
_OPEN: dict[str, tuple[Source, tuple[int, int, int] | None]] = {}


def open_source(images: str | Path) -> Source:
    """The source behind IMAGES: a folder, an archive, a folder of archives, or an address on the Hub.

    Raises `UserError` where there is none, or where it is none of them.
    """
    kind, place = kind_of(images)
    return open_kind(kind, place)


def open_kind(kind: str, place: str | Path) -> Source:
    """A source whose kind is known."""
    module, _, name = SOURCES[kind].partition(":")
    source: Any = getattr(import_module(module), name)
    return source(place)


def opened(images: str) -> Source:
    """The source behind IMAGES, left open for the process's next image: a zip's directory is read once.

    It is opened anew where its file was replaced since: a process may index it again.
    """
    known = _OPEN.get(images)
    if known is not None and _stamp(known[0]) in (known[1], None):
        return known[0]
    if known is not None:
        del _OPEN[images]
        known[0].__exit__()
    source = open_source(images)
    _OPEN[images] = source, _stamp(source)
    return source


def _stamp(source: Source) -> tuple[int, int, int] | None:
    """What changes with a source's file, or with the names in its folder; None where it is neither."""
    try:
        found = os.stat(source.name)  # noqa: PTH116 - before every image, and a Path would cost more than the answer
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def pinned(images: str | Path) -> str:
    """The name by which other processes, and this one tomorrow, open the same files.

    An address on the Hub gets the commit that it means now; anything else is itself.
    """
    if not is_on_hub(images):
        return str(images)
    from builders.sources.hub import pin

    return pin(images)
