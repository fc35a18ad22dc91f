"""Single values of a binary Parquet column, in any order and in bounded memory.

Parquet is decoded from the start of a row group on. So each row group is read through once, value by value, and only
the places of its values are kept. What `datasets` and this package write is uncompressed: there the places are those in
the file itself. Values of compressed row groups are copied to temporary files, of which only the latest are kept.
"""

import struct
import tempfile
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError
from builders.sources.layout import MAX_FILE_BYTES, check_size
from builders.sources.parquet_footer import Chunk

SPILL_BYTES = 512 * 1024**2  # of temporary files per process, or one row group where that is larger
SPILL_FILES = 64
BOMB_RATIO = 100  # photographs are compressed already: nothing shrinks them to a hundredth
_WINDOW_BYTES = 64 * 1024


class Place(NamedTuple):
    """Where one value stands: `column` is a leaf's name (`image.bytes`), `chunk` its part in the row group `group`.

    `row` counts within the row group.
    """

    file: Path
    column: str
    group: int
    row: int
    chunk: Chunk


@dataclass(slots=True)
class _Group:
    """The places of a row group's values. `lengths` are in bytes, -1 for a null; what is missing at the end is damaged.

    `offsets` lead into the Parquet file, or into a temporary file where the values do not lie in one piece.
    """

    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    is_in_one_piece: bool = True
    damage: str = "it holds fewer rows than it states"


class ParquetValues:
    """Reads values by their `Place`; threads may share it. An `OSError` tells of one value and names its file."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Path, str, int], _Group] = {}
        self._spills: OrderedDict[tuple[Path, str, int], tuple[IO[bytes], int]] = OrderedDict()
        self._lock = threading.Lock()

    def size(self, place: Place) -> int:
        """The length of a value in bytes. The first question about a row group reads all of it."""
        with self._lock:
            group = self._groups.get(place[:3]) or self._scan(place, keep=False)
            return _length(place, group)

    def read(self, place: Place) -> bytes:
        """The bytes of a value; `OSError` if it is null, damaged or absurdly large."""
        key = place[:3]
        with self._lock:
            group = self._groups.get(key)
            if group is None or not (group.is_in_one_piece or key in self._spills):
                group = self._scan(place, keep=True)
            length = _length(place, group)
            check_size(length)
            if not group.is_in_one_piece:
                self._spills.move_to_end(key)
                return _read_at(self._spills[key][0], group.offsets[place.row], length)
        with place.file.open("rb") as file:
            return _read_at(file, group.offsets[place.row], length)

    def close(self) -> None:
        """Remove the temporary files."""
        with self._lock:
            while self._spills:
                self._spills.popitem()[1][0].close()

    def _scan(self, place: Place, keep: bool) -> _Group:
        """Read through a row group and note where its values are; `keep` a copy of those that lie in pieces."""
        try:
            with pq.ParquetFile(
                place.file,
                buffer_size=1024**2,  # with pre_buffer, which would fetch all of a column chunk: page by page
                pre_buffer=False,
                page_checksum_verification=True,
            ) as parquet:
                group = _locate(place, parquet)
                if not group.is_in_one_piece:
                    group = self._spill(place, parquet, keep)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise OSError(f"{place.file.name} cannot be opened any more: {error}") from error
        pa.default_memory_pool().release_unused()
        self._groups[place[:3]] = group
        return group

    def _spill(self, place: Place, parquet: pq.ParquetFile, keep: bool) -> _Group:
        """The places of a row group's values in a new temporary file, which is kept or not even written."""
        group = _Group(is_in_one_piece=False)
        n_bytes = 0
        try:
            with ExitStack() as to_close:
                spill = to_close.enter_context(tempfile.TemporaryFile()) if keep else None
                for value in _values(place, parquet, group):
                    group.lengths.append(-1 if value is None else len(value))
                    group.offsets.append(n_bytes)
                    if value is not None and len(value) <= MAX_FILE_BYTES and spill is not None:
                        spill.write(value)
                        n_bytes += len(value)
                if spill is not None:
                    spill.flush()
                    self._spills[place[:3]] = (spill, n_bytes)
                    to_close.pop_all()  # it stays open
                    self._forget()
        except OSError as error:  # _values keeps the damage of the Parquet file to itself
            raise UserError(
                f"cannot copy images of {place.file.name} to a temporary file: {error.strerror}",
                "make room, or set TMPDIR to a folder with more of it",
            ) from error
        return group

    def _forget(self) -> None:
        """Remove the temporary files that were used least lately, until the rest is small; the last one stays."""
        n_bytes = sum(size for _, size in self._spills.values())
        while len(self._spills) > 1 and (n_bytes > SPILL_BYTES or len(self._spills) > SPILL_FILES):
            spill, size = self._spills.popitem(last=False)[1]
            spill.close()
            n_bytes -= size


def _length(place: Place, group: _Group) -> int:
    if place.row >= len(group.lengths):
        raise OSError(f"row group {place.group} of {place.file.name} is damaged: {group.damage}")
    if group.lengths[place.row] < 0:
        raise OSError(f"row {place.row} of row group {place.group} in {place.file.name} holds no image bytes")
    return group.lengths[place.row]


def _locate(place: Place, parquet: pq.ParquetFile) -> _Group:
    """The places of a row group's values in the file itself, unless they are compressed, or share a dictionary."""
    group = _Group()
    if place.chunk.is_compressed:
        return _Group(is_in_one_piece=False)
    position = place.chunk.start
    with place.file.open("rb") as file:
        for value in _values(place, parquet, group):
            n_bytes = -1 if value is None else len(value)
            if value and n_bytes <= MAX_FILE_BYTES:
                found = _find(file, value, position, place.chunk.end)
                if found is None:
                    return _Group(is_in_one_piece=False)
                position = found
            group.lengths.append(n_bytes)
            group.offsets.append(position)
            position += n_bytes if 0 < n_bytes <= MAX_FILE_BYTES else 0
    return group


def _find(file: IO[bytes], value: memoryview, start: int, end: int) -> int | None:
    """Where `value` begins in the file: in PLAIN encoding, behind its length, and in the order of the rows."""
    needle = struct.pack("<I", len(value)) + bytes(value[:64])
    while start < end:
        window = _read_at(file, start, min(_WINDOW_BYTES, end - start), is_whole=False)
        at = window.find(needle)
        if len(window) < len(needle):  # the file may end before the chunk is said to
            return None
        if at < 0:
            start += len(window) - len(needle) + 1
        elif _read_at(file, start + at + 4, len(value), is_whole=False) == value.tobytes():
            return start + at + 4
        else:
            start += at + 1
    return None


def _values(place: Place, parquet: pq.ParquetFile, group: _Group) -> Iterator[memoryview | None]:
    """A row group's values in the order of its rows, one in memory at a time; `group` gets why they end too early."""
    if place.chunk.n_unpacked > max(MAX_FILE_BYTES, BOMB_RATIO * (place.chunk.end - place.chunk.start)):
        group.damage = f"it unpacks to {place.chunk.n_unpacked:,} bytes, a decompression bomb?"
        return
    try:
        # Batches of one row: a dictionary page can hold one huge value that thousands of rows refer to.
        for batch in parquet.iter_batches(1, row_groups=[place.group], columns=[place.column], use_threads=False):
            column = batch.column(0)
            while pa.types.is_struct(column.type):
                column = column.field(0)
            yield memoryview(column[0].as_buffer()) if column[0].is_valid else None
    except (OSError, ValueError, pa.ArrowException) as error:
        group.damage = str(error)


def _read_at(file: IO[bytes], offset: int, length: int, is_whole: bool = True) -> bytes:
    file.seek(offset)
    piece = file.read(length)
    if is_whole and len(piece) < length:
        raise OSError(f"the file ends {length - len(piece):,} bytes early; it was cut while it was read")
    return piece
