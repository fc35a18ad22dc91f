"""The records that cross folders, and their Arrow schemas: the data contract everybody else imports."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

SCHEMA_VERSION = 1  # raised when a column changes its meaning
IndexStatus = Literal["ok", "refused"]
DescriptionStatus = Literal["ok", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One source file, before any model has seen it.

    `image_id` is the first 16 hex digits of the sha256 of `path`: opaque, unique per file, the same on every machine.
    `image_sha256` is that of the file's bytes, so copies share it; empty if the bytes could not be read.
    `path` is relative to the source's root and POSIX. It names the class, so it never reaches a model.
    `split` is `train`, `validation` or `test`; `label` the class folder's name, empty where there is none.
    `width_px`, `height_px` are those after EXIF transposition; 0 where the file was refused before its size was known.
    `status` is `ok` only if the image was decoded to its last pixel; else `refused`, and `reason` says why.
    """

    image_id: str
    image_sha256: str
    path: str
    split: str
    label: str
    width_px: int
    height_px: int
    n_bytes: int
    format: str
    status: IndexStatus
    reason: str


@dataclass(frozen=True, slots=True)
class Description:
    """What one VLM said of one indexed image, or why it said nothing.

    Copies (same `image_sha256`) are described once and carry the same text. `status` is `ok`, `refused` (the image
    could not be used, `reason` says why) or `failed` (the engine could not answer; asked again by the next run).
    `finish_reason` is the engine's: `stop`, `length`, …; token counts are 0 where the engine does not tell.
    `flags` name what is suspicious about the text (`empty`, `truncated`, …); nothing is ever cut.
    `retries` counts how often the image was asked again because of its flags, each time at a higher temperature;
    `temperature` is the one that gave this text, the least flagged. `findings` is JSON of the run's schema, or empty.
    `described_at` is UTC, ISO 8601, to the second.
    """

    image_id: str
    image_sha256: str
    status: DescriptionStatus
    reason: str
    description: str
    finish_reason: str
    n_image_tokens: int
    n_prompt_tokens: int
    n_output_tokens: int
    n_tiles: int
    attempt: int
    retries: int
    temperature: float
    flags: tuple[str, ...]
    findings: str
    engine_id: str
    described_at: str


INDEX_SCHEMA = pa.schema(
    [pa.field(f.name, pa.int64() if f.type is int else pa.string(), nullable=False) for f in fields(IndexRow)]
)
_DESCRIPTION_TYPES: dict[Any, pa.DataType] = {
    int: pa.int32(),
    float: pa.float64(),
    tuple[str, ...]: pa.list_(pa.string()),
}
DESCRIPTION_SCHEMA = pa.schema(
    [pa.field(f.name, _DESCRIPTION_TYPES.get(f.type, pa.string()), nullable=False) for f in fields(Description)]
)
_WITH_FEW_VALUES = frozenset(
    {"split", "label", "format", "status", "reason", "finish_reason", "engine_id", "described_at"}
)


def image_id_of(path: str) -> str:
    """The opaque id of a file: 16 hex digits of the sha256 of its relative POSIX path, in UTF-8."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def to_table(rows: "list[IndexRow] | list[Description]", schema: pa.Schema) -> pa.Table:
    """An Arrow table of records in `schema`'s column order."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def index_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[IndexRow]:
    """The records of an index, in its order."""
    return (IndexRow(*values) for values in _rows_of(batches, INDEX_SCHEMA))


def descriptions(batches: Iterable[pa.RecordBatch]) -> Iterator[Description]:
    """The records of a part, in its order."""
    return (Description(*values) for values in _rows_of(batches, DESCRIPTION_SCHEMA))


def _rows_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[tuple[Any, ...]]:
    """The rows as tuples in the schema's order; equal texts of a column that has few different ones are one object.

    Of a large run little else is in memory: every text in every row on its own would take half as much again.
    """
    once: dict[str, str] = {}
    for batch in batches:
        columns: list[list[Any]] = []
        for field in schema:
            values = batch[field.name].to_pylist()
            if field.name in _WITH_FEW_VALUES:
                values = [once.setdefault(value, value) for value in values]
            elif pa.types.is_list(field.type):
                values = [tuple(value) for value in values]
            columns.append(values)
        yield from zip(*columns, strict=True)
