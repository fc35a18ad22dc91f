"""A folder of images, its links followed but never in circles."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from builders.errors import UserError
from builders.sources.layout import changed_ns, check_size, is_hidden, is_image_path


class FolderSource:
    """All image files below a folder, by relative POSIX path.

    Links to folders are followed (data sets are often spread over disks), a link to one of its own parents is not.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.name = str(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def paths(self) -> Iterator[str]:
        """Relative paths of files with an image's ending, sorted by code point."""
        yield from sorted(path for path in files_below(self.root) if is_image_path(path))

    def read(self, path: str) -> bytes:
        """The bytes of one file; `OSError` if it cannot be read, or is a pipe or a device that would never end."""
        found = self._stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a regular file")
        check_size(found.st_size)
        with open(f"{self.name}/{path}", "rb", buffering=0) as file:  # noqa: PTH123 - as in `_stat`
            return file.read()

    def size(self, path: str) -> int:
        """The length of one file in bytes; `OSError` if it is not there."""
        return self._stat(path).st_size

    def modified_ns(self, path: str) -> int:
        """When one file was last changed, in nanoseconds since 1970; `OSError` if it is not there."""
        return changed_ns(self._stat(path))

    def _stat(self, path: str) -> os.stat_result:
        self._check_below(path)
        return os.stat(f"{self.name}/{path}")  # noqa: PTH116 - of every file, and a Path would cost more than the answer

    def _check_below(self, path: str) -> None:
        if path.startswith("/") or ".." in path.split("/"):
            raise UserError(f"path '{path}' leaves {self.root}; only paths below it are read")


def files_below(root: Path) -> Iterator[str]:
    """Relative POSIX paths of all files below a folder, in no order. Raises `UserError` where one cannot be listed."""
    top = str(root)
    return (file.removeprefix(top).lstrip("/") for file in _walk(top, ()))


def archives_below(root: Path, ending: str) -> list[str]:
    """Sorted relative paths of all files below a folder that end so and are not hidden."""
    return sorted(name for name in files_below(root) if name.lower().endswith(ending) and not is_hidden(name))


def _walk(folder: str, parents: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in parents:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}", f"chmod u+rx '{folder}'") from error
    for entry in entries:
        if not _is_folder(entry):
            yield entry.path
        elif not entry.name.startswith("."):
            yield from _walk(entry.path, (*parents, real))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: listed as a file, and refused when it is read
        return False
