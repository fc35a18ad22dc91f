"""Where a column lies in a Parquet file, and how, from the file's footer, read without pyarrow.

pyarrow 26.0 ends the whole process when it is asked for a column chunk whose metadata are damaged (an unknown codec, a
histogram of the wrong size), so it is not asked. The formats:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, TypeVar

_ROW_GROUPS = 4  # a field of FileMetaData
_COLUMNS, _N_BYTES, _N_ROWS, _SORTED_BY = 1, 2, 3, 4  # of RowGroup
_COLUMN_NUMBER = 1  # of SortingColumn
_META, _PAGE_INDEX, _PAGE_INDEX_BYTES = 3, 4, 5  # of ColumnChunk
_ENCODINGS, _PATH, _CODEC, _UNPACKED, _PACKED, _DATA_PAGE, _DICTIONARY_PAGE = 2, 3, 4, 6, 7, 9, 11  # of ColumnMetaData
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
_ENCODING_NAMES = (
    *("PLAIN", "1", "PLAIN_DICTIONARY", "RLE", "BIT_PACKED", "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"),
    *("DELTA_BYTE_ARRAY", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"),
)
_DEEPEST = 32  # structures within structures; Parquet's own go down to 8
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column in a row group of `n_rows`: its pages lie from byte `start` to `end`, and unpack to `n_unpacked`."""

    n_rows: int
    start: int
    end: int
    n_unpacked: int
    is_compressed: bool


@dataclass(frozen=True, slots=True)
class Leaf:
    """How one column of a row group is stored; `path` is like `image.bytes`, names of codecs are Parquet's."""

    path: str
    codec: str
    encodings: frozenset[str]
    has_page_index: bool


@dataclass(frozen=True, slots=True)
class RowGroup:
    """What a footer says of a row group: `n_bytes` unpacked, the paths of the columns that it is sorted by, all."""

    n_rows: int
    n_bytes: int
    sorted_by: list[str]
    columns: list[Leaf]


def column_chunks(file: Path, column: str) -> list[Chunk]:
    """The chunks of a leaf like `image.bytes`, one per row group. Raises `ValueError` where the footer is damaged."""
    return _of_row_groups(file, lambda row_group: _chunk(row_group, column.split(".")))


def row_groups(file: Path) -> list[RowGroup]:
    """All row groups in their order. Raises `ValueError` where the footer is damaged."""
    return _of_row_groups(file, _row_group)


def _of_row_groups(file: Path, make: Callable[[dict[int, Any]], Made]) -> list[Made]:
    thrift = _Thrift(_footer(file))
    try:
        for field, kind in thrift.fields():
            if field == _ROW_GROUPS:
                _, n_groups = thrift.list_header()
                return [make(thrift.struct()) for _ in range(n_groups)]
            thrift.value(kind)
    except (LookupError, TypeError, AttributeError) as error:  # another structure than Parquet's
        raise ValueError(f"its footer is damaged: {error!r}") from error
    return []


def _footer(file: Path) -> bytes:
    with file.open("rb") as opened:
        n_file_bytes = opened.seek(0, 2)
        opened.seek(max(0, n_file_bytes - 8))
        tail = opened.read(8)
        n_bytes = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or n_bytes > n_file_bytes - 8:
            raise ValueError("it has no footer")
        opened.seek(n_file_bytes - 8 - n_bytes)
        return opened.read(n_bytes)


def _chunk(row_group: dict[int, Any], path: list[str]) -> Chunk:
    wanted = [part.encode() for part in path]
    metas = (column[_META] for column in row_group[_COLUMNS])
    meta = next((meta for meta in metas if meta[_PATH] == wanted), {})
    start = meta.get(_DICTIONARY_PAGE) or meta[_DATA_PAGE]
    end = start + meta[_PACKED]
    return Chunk(row_group[_N_ROWS], start, end, meta[_UNPACKED], is_compressed=meta[_CODEC] != 0)


def _row_group(row_group: dict[int, Any]) -> RowGroup:
    columns = [_leaf(column) for column in row_group[_COLUMNS]]
    sorted_by = [columns[each[_COLUMN_NUMBER]].path for each in row_group.get(_SORTED_BY, ())]
    return RowGroup(index(row_group[_N_ROWS]), index(row_group[_N_BYTES]), sorted_by, columns)


def _leaf(column: dict[int, Any]) -> Leaf:
    meta = column[_META]
    return Leaf(
        path=".".join(part.decode("utf-8", "backslashreplace") for part in meta[_PATH]),
        codec=_name(_CODECS, meta[_CODEC]),
        encodings=frozenset(_name(_ENCODING_NAMES, encoding) for encoding in meta[_ENCODINGS]),
        has_page_index=_PAGE_INDEX in column and _PAGE_INDEX_BYTES in column,
    )


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


class _Thrift:
    """A reader of Thrift's compact protocol; structures become dicts by field number. `LookupError` at the end."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._at = 0
        self._depth = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field of a structure; its value is to be read before the next."""
        number = 0
        while (header := self._byte()) != 0:
            number = number + (header >> 4) if header >> 4 else self._integer()
            yield number, header & 15

    def struct(self) -> dict[int, Any]:
        """The fields of a structure."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise LookupError("structures too deep")
        read = {number: self.value(kind) for number, kind in self.fields()}
        self._depth -= 1
        return read

    def list_header(self) -> tuple[int, int]:
        """The kind of a list's elements, and their number."""
        header = self._byte()
        n_elements = header >> 4 if header >> 4 < 15 else self._unsigned()
        if n_elements > len(self._encoded) - self._at:  # each takes a byte at least
            raise LookupError("a list longer than the file")
        return header & 15, n_elements

    def value(self, kind: int, is_field: bool = True) -> Any:
        """A value of any kind but a map, which Parquet has none of."""
        match kind:
            case 1 | 2:  # a field's kind is its value; in lists there is a byte
                return kind == 1 if is_field else self._byte() == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._unsigned())
            case 9 | 10:
                of_kind, n_elements = self.list_header()
                return [self.value(of_kind, is_field=False) for _ in range(n_elements)]
            case 12:
                return self.struct()
            case _:
                raise LookupError(f"kind {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._encoded[self._at - 1]

    def _bytes(self, n_bytes: int) -> bytes:
        self._at += n_bytes
        if self._at > len(self._encoded):
            raise LookupError("a text longer than the file")
        return self._encoded[self._at - n_bytes : self._at]

    def _unsigned(self) -> int:
        result = shift = 0
        while (byte := self._byte()) >= 128:
            result |= (byte & 127) << shift
            shift += 7
        return result | byte << shift

    def _integer(self) -> int:
        zigzag = self._unsigned()
        return (zigzag >> 1) ^ -(zigzag & 1)
