"""A zip file, read in place and never unpacked."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from builders.errors import UserError
from builders.sources.layout import MAX_FILE_BYTES, changed_ns, check_size, is_image_path
from builders.sources.naming import check_names

# What `zipfile` was seen to raise on damaged archives, and on those of another version or with a password.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError, RuntimeError)
MAX_PACKED, FREELY_PACKED_BYTES = 100, 16 * 1024**2  # photographs hardly shrink in a zip; a blank bitmap may, if small


class ZipSource:
    """All image files in a zip, by their names in it; names that leave the archive's root are refused."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_DAMAGE, OSError) as error:
            raise UserError(f"cannot open {path} as a zip file: {error}", f"unzip -t '{path}'") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def paths(self) -> Iterator[str]:
        """Names of entries with an image's ending, sorted by code point; `UserError` on a name like `../x.jpg`."""
        names = [name for name in self._zip.namelist() if not name.endswith("/")]  # a damaged archive may hold ""
        check_names(names, self.path)
        yield from sorted(name for name in set(names) if is_image_path(name))

    def read(self, path: str) -> bytes:
        """The bytes of one entry, its checksum verified; `OSError` if it is damaged, locked, too large or a bomb."""
        check_size(self.size(path))
        self._check_packing(path)
        try:
            with self._zip.open(path) as file:
                return file.read(MAX_FILE_BYTES + 1)
        except _DAMAGE as error:
            raise OSError(f"the zip entry cannot be read: {error}") from error

    def _check_packing(self, path: str) -> None:
        """Raise `OSError` for an entry that unpacks to a multiple of itself that no photograph does."""
        entry = self._zip.getinfo(path)
        packed, unpacked = entry.compress_size, entry.file_size
        if unpacked > max(FREELY_PACKED_BYTES, MAX_PACKED * packed):
            raise OSError(
                f"it unpacks {packed:,} bytes to {unpacked:,}, a zip bomb? at most {MAX_PACKED} times as many are read"
            )

    def size(self, path: str) -> int:
        """The unpacked length of one entry in bytes, as the archive states it."""
        try:
            return self._zip.getinfo(path).file_size
        except KeyError as error:
            raise FileNotFoundError(f"no entry '{path}' in {self.path}") from error

    def modified_ns(self, path: str) -> int:
        """When the archive was last changed, in nanoseconds since 1970: its entries' own times are coarse."""
        return changed_ns(self.path.stat())
