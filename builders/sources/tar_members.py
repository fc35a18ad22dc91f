"""What a tar file holds and where, read from its headers alone; nothing is unpacked, and damage is never skipped."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from builders.errors import UserError

MAX_HEADER_BYTES = 1024**2  # of a long name or an extended header; they are read into memory
_END_BYTES = 1024**2  # so much of what follows the last entry is looked at


@dataclass(frozen=True, slots=True)
class Member:
    """One entry that is no folder: its `n_bytes` begin at `offset`; `odd` says what it is if it is no plain file."""

    name: str
    offset: int
    n_bytes: int
    odd: str


def tar_members(path: Path) -> Iterator[Member]:
    """The entries in their order. Raises `UserError` where the file is no tar, or is damaged or cut anywhere."""
    try:
        with path.open("rb") as file:
            yield from _members(file, path)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise _damaged(path, str(error)) from error


def _members(file: IO[bytes], path: Path) -> Iterator[Member]:
    n_file_bytes = path.stat().st_size
    tar = tarfile.TarFile(fileobj=_Headers(file), encoding="utf-8")  # type: ignore[arg-type]  # reads, seeks and tells
    end = 0
    while (found := tar.next()) is not None:
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # undocumented; it would keep them all
        if tar.offset <= end:
            raise _damaged(path, f"the entry at byte {found.offset:,} states a length below 0")
        end = tar.offset
        if found.isdir():
            continue
        odd = _oddity(found)
        if not odd and found.offset_data + found.size > n_file_bytes:
            raise _damaged(path, f"it ends within the entry '{found.name}'")
        yield Member(found.name, found.offset_data, found.size, odd)
    file.seek(tar.offset)
    if file.read(_END_BYTES).strip(b"\0"):  # tarfile takes a damaged header for the end
        raise _damaged(path, f"its entries end at byte {tar.offset:,} of {n_file_bytes:,}, and there is more behind it")


def _oddity(found: tarfile.TarInfo) -> str:
    if found.issparse():
        return "a sparse file in a tar is not read"
    if found.issym() or found.islnk():
        return "a link in a tar is not followed"
    return "" if found.isreg() else "a device or pipe in a tar is not read"


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"cannot read {path} as a tar file: {why}", f"tar -tf '{path}', or download it again")


class _Headers:
    """A file from which only so much is read at once as a header may hold: tarfile would allocate what one claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, n_bytes: int) -> bytes:
        if n_bytes > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {n_bytes:,} bytes")
        return self._file.read(n_bytes)
