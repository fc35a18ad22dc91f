"""What a Parquet file says of its images besides their bytes: which column holds them, their labels, their names."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError
from builders.sources.naming import MAX_NAME_BYTES
from builders.sources.parquet_footer import Chunk, column_chunks

_BATCH_ROWS = 1024
_FIX = "download it or write it again"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what, as leaves like `image.bytes`; "" where there is none.

    `classes` are the names behind a label's numbers, in their order; empty where the numbers are all there is. `chunks`
    are the parts of the image column, one per row group.
    """

    image: str
    chunks: list[Chunk]
    name: str
    label: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: `group` and `row` within the group, `number` within the file; `label` and `name` are "" if not told."""

    group: int
    row: int
    number: int
    label: str
    name: str


def read_columns(file: Path) -> tuple[Columns | None, list[str]]:
    """What the columns hold, None where none holds images, and all their names.

    Images are in the column `image`, the only `Image` feature, or `bytes`; labels, numbers or texts, in `label` or the
    only `ClassLabel`. Raises `UserError` where the file is no Parquet, or one that cannot be true.
    """
    with _open(file) as parquet:
        schema = parquet.schema_arrow
        n_rows = parquet.metadata.num_rows
    n_bytes = file.stat().st_size
    if n_rows > n_bytes:
        raise UserError(f"{file} claims {n_rows:,} rows in {n_bytes:,} bytes, a decompression bomb? nothing was read")
    features = _features(schema, file)
    image = _first(schema, ["image", _only(features, "Image"), "bytes"], is_image)
    if not image:
        return None, schema.names
    label = _first(schema, ["label", _only(features, "ClassLabel")], _is_label)
    for name in (image, label):
        _check_name(name, schema, file)
    is_struct = pa.types.is_struct(schema.field(image).type)
    leaf = f"{image}.bytes" if is_struct else image
    columns = Columns(
        image=leaf,
        chunks=_chunks(file, leaf),
        name=f"{image}.path" if is_struct and _is_text(_inner(schema.field(image).type, "path")) else "",
        label=label,
        classes=_classes(features.get(label), file),
    )
    return columns, schema.names


def read_rows(file: Path, columns: Columns) -> Iterator[TableRow]:
    """All rows in their order; of the file only the small columns are read."""
    small = [column for column in (columns.label, columns.name) if column]
    number = 0
    # Texts as dictionaries: a small file can hold one long text a million times.
    with _open(file, read_dictionary=small) as parquet:
        for group, chunk in enumerate(columns.chunks):
            told = _told(parquet, group, columns, file) if small else (("", "") for _ in range(chunk.n_rows))
            for row, (label, name) in enumerate(told):
                yield TableRow(group, row, number, label, name)
                number += 1


def _open(file: Path, read_dictionary: list[str] | None = None) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=1024**2, pre_buffer=False, read_dictionary=read_dictionary)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot open {file} as a Parquet file: {error}", _FIX) from error


def _chunks(file: Path, leaf: str) -> list[Chunk]:
    try:
        return column_chunks(file, leaf)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot open {file} as a Parquet file: {error}", _FIX) from error


def _told(parquet: pq.ParquetFile, group: int, columns: Columns, file: Path) -> Iterator[tuple[str, str]]:
    """The label and the name of every row of a row group."""
    small = [column for column in (columns.label, columns.name) if column]
    try:
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=small, use_threads=False):
            told = [
                _texts(batch, column, columns.classes, file) if column else [""] * batch.num_rows
                for column in (columns.label, columns.name)
            ]
            yield from zip(*told, strict=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"the labels or names in row group {group} of {file} are damaged: {error}", _FIX) from error


def _texts(batch: pa.RecordBatch, column: str, classes: tuple[str, ...], file: Path) -> list[str]:
    """The texts of a leaf, or the names behind its numbers; "" for a null, and for -1, the Hub's "no label"."""
    name, _, leaf = column.partition(".")
    values = batch.column(name).field(leaf) if leaf else batch.column(name)
    if pa.types.is_dictionary(values.type):
        texts = _strings(values.dictionary, file)
        return ["" if index is None else texts[index] for index in values.indices.to_pylist()]
    if not pa.types.is_integer(values.type):
        return _strings(values, file)
    numbers = [-1 if number is None else number for number in values.to_pylist()]
    beyond = next((number for number in numbers if classes and number >= len(classes)), None)
    if beyond is not None:
        raise UserError(f"{file} holds the label number {beyond} and names for {len(classes)} classes only", _FIX)
    return ["" if number < 0 else classes[number] if classes else str(number) for number in numbers]


def _strings(values: pa.Array, file: Path) -> list[str]:
    """Texts, "" for null; what is no UTF-8 as the file system's functions give it, to be refused where it is used."""
    as_bytes = values.cast(pa.large_binary())
    longest = max((value.as_buffer().size for value in as_bytes if value.is_valid), default=0)
    if longest > MAX_NAME_BYTES:
        raise UserError(f"{file} holds a label or name of {longest:,} bytes; at most {MAX_NAME_BYTES:,} are read", _FIX)
    return [(text or b"").decode("utf-8", "surrogateescape") for text in as_bytes.to_pylist()]


def _features(schema: pa.Schema, file: Path) -> dict[str, Any]:
    """The features that `datasets` wrote beside the columns; empty where it wrote none."""
    written = (schema.metadata or {}).get(b"huggingface")
    if written is None:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
        return {str(name): feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"the features in the metadata of {file} are damaged: {error}", _FIX) from error


def _classes(feature: dict[str, Any] | None, file: Path) -> tuple[str, ...]:
    if feature is None or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"the names of the classes in the metadata of {file} are no list of texts", _FIX)
    return tuple(names)


def _only(features: dict[str, Any], kind: str) -> str:
    """The name of the only feature of a kind; "" where there is none or several."""
    names = [name for name, feature in features.items() if feature.get("_type") == kind]
    return names[0] if len(names) == 1 else ""


def _first(schema: pa.Schema, names: list[str], is_fit: Callable[[pa.DataType], bool]) -> str:
    """The first of the names whose (first) column fits; "" where none does."""
    fields = ((name, schema.field(schema.names.index(name))) for name in names if name in schema.names)
    return next((name for name, field in fields if is_fit(field.type)), "")


def is_image(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images: bytes, or a structure with them."""
    return _is_binary(kind) or (pa.types.is_struct(kind) and _is_binary(_inner(kind, "bytes")))


def _check_name(name: str, schema: pa.Schema, file: Path) -> None:
    """Raise `UserError` where a column cannot be asked for by its name: a dot leads into a structure."""
    if "." in name:
        fix = f"rename it, for example to {name.replace('.', '_')}"
        raise UserError(f"{file} has its images or labels in '{name}', and a column's name must have no dot", fix)
    n_columns = schema.names.count(name)
    if n_columns > 1:
        raise UserError(f"{file} has {n_columns} columns called '{name}': which one?", "rename or drop the others")


def _is_label(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or _is_text(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _inner(kind: pa.DataType, name: str) -> pa.DataType:
    """The type of a struct's field; Arrow's null type where it has no such field."""
    return kind.field(name).type if kind.get_field_index(name) >= 0 else pa.null()
