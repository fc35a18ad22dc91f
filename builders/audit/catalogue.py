"""What is audited: index rows, from a source, from an index made before, or from a bare list of paths."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builders.audit.config import AuditConfig
from builders.audit.records import Record, read_records
from builders.errors import UserError
from builders.index import index_images, read_index
from builders.join_images import some
from builders.schema import INDEX_SCHEMA, IndexRow, image_id_of
from builders.sources import open_source, pinned
from builders.sources.layout import SPLITS, split_and_label
from builders.sources.parquet_table import is_image

SPLIT_ORDER = {"train": 0, "validation": 1, "test": 2}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA256_COLUMNS = ("image_sha256", "sha256")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The files under audit, sorted by path.

    `images` is where their photographs are, None if only a list of them was given. `is_bare` says that the list told
    no more than paths: sizes and formats are unknown then. `known_surplus` holds the `image_id` of files that somebody
    found to repeat an earlier one, None if copies are to be found by comparing checksums.
    """

    rows: list[IndexRow]
    images: str | None
    is_bare: bool
    known_surplus: frozenset[str] | None

    @property
    def ok_rows(self) -> list[IndexRow]:
        """The rows of usable photographs."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def has_all_checksums(self) -> bool:
        """Whether every usable file's sha256 is known."""
        return all(row.image_sha256 for row in self.ok_rows)


def read_catalogue(config: AuditConfig, say: Callable[[str], None]) -> Catalogue:
    """The files that `config.images` and `config.index` name.

    Raises `UserError` where they hold none, and where the two do not name the same ones.
    """
    listed = _list_columns(Path(config.images))
    if listed is None:
        if config.copies is not None:
            raise UserError("--copies is for a bare list of paths; photographs are compared by their own bytes")
        say("indexing: every image is decoded to its last pixel" if config.index is None else "reading the index")
        images = pinned(config.images)
        rows = index_images(images, config.n_workers) if config.index is None else _indexed(images, config.index)
        return Catalogue(sorted(rows, key=lambda row: row.path), images, False, None)
    if config.index is not None:
        raise UserError(
            f"--index {config.index} goes with the photographs, but IMAGES is a list: {config.images}",
            "vl-dermnet audit PHOTOGRAPHS --index FILE --out AUDIT   or leave --index out",
        )
    if listed == INDEX_SCHEMA.names:
        return Catalogue(sorted(read_index(Path(config.images)), key=lambda row: row.path), None, False, None)
    rows = _bare_rows(Path(config.images))
    if config.copies is None:
        return Catalogue(rows, None, True, None)
    rows, known_surplus = _with_known_copies(rows, config.copies)
    return Catalogue(rows, None, True, known_surplus)


def in_split_order(row: IndexRow) -> tuple[int, str]:
    """A sort key: train before validation before test, then by path. The first of several copies is the original."""
    return SPLIT_ORDER[row.split], row.path


def _indexed(images: str, index: Path) -> list[IndexRow]:
    """The rows of an index of all files in `images`; a file that it lacks could be a leak that nobody looked for."""
    rows = read_index(index)
    known = {row.image_id: row.path for row in rows}
    with open_source(images) as source:
        there = {image_id_of(path): path for path in source.paths()}
    lacking = sorted(path for image_id, path in there.items() if image_id not in known)
    gone = sorted(path for image_id, path in known.items() if image_id not in there)
    if lacking or gone:
        parts = [f"it lacks {len(lacking):,} files: {some(lacking)}"] if lacking else []
        parts += [f"{len(gone):,} of its files are gone: {some(gone)}"] if gone else []
        raise UserError(
            f"{index} is not an index of {images} as it is now; {'; '.join(parts)}",
            f"vl-dermnet index '{images}' --out '{index}'   or leave --index out",
        )
    return rows


def _list_columns(path: Path) -> list[str] | None:
    """The columns of a list of files, None for anything that holds photographs."""
    if path.suffix.lower() == ".csv" and path.is_file():
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                return next(csv.reader(file), [])
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"cannot read {path} as CSV: {error}", "save it as CSV in UTF-8") from error
    if path.suffix.lower() == ".parquet" and path.is_file():
        schema = _read_schema(path)
        holds_images = any(pa.types.is_struct(field.type) or is_image(field.type) for field in schema)
        return None if holds_images or "path" not in schema.names else schema.names
    return None


def _read_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} as Parquet: {error}") from error


def _bare_rows(path: Path) -> list[IndexRow]:
    rows = sorted((_bare_row(path, record) for record in _read_records(path)), key=lambda row: row.path)
    if not rows:
        raise UserError(f"{path} lists no file: it has a header and no rows")
    for before, row in pairwise(rows):
        if before.path == row.path:
            raise UserError(f"{path} lists '{row.path}' twice; a path stands for one file")
    return rows


def _bare_row(path: Path, record: dict[str, str]) -> IndexRow:
    name = record["path"]
    split, label = split_and_label(name)
    split = record.get("split") or split
    if split not in SPLITS:
        raise UserError(f"{path}: unknown split '{split}' of '{name}'; choose one of: {', '.join(sorted(SPLITS))}")
    sha256 = next((record[column].lower() for column in _SHA256_COLUMNS if record.get(column)), "")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise UserError(f"{path}: '{sha256}' of '{name}' is no sha256: 64 hex digits")
    return IndexRow(
        image_id=image_id_of(name),
        image_sha256=sha256,
        path=name,
        split=SPLITS[split],
        label=record.get("label") or label,
        width_px=0,
        height_px=0,
        n_bytes=0,
        format="",
        status="ok",
        reason="",
    )


def _with_known_copies(rows: list[IndexRow], copies: Path) -> tuple[list[IndexRow], frozenset[str]]:
    """`rows` with the checksums that `copies` tells, and the ids of the files listed in it."""
    sha256_of = {row.path: row.image_sha256 for row in (_bare_row(copies, each) for each in _read_records(copies))}
    unknown = sorted(set(sha256_of) - {row.path for row in rows})
    if unknown:
        raise UserError(f"{copies} lists '{unknown[0]}', which is none of the {len(rows):,} files under audit")
    completed = [replace(row, image_sha256=sha256_of.get(row.path, row.image_sha256)) for row in rows]
    return completed, frozenset(row.image_id for row in rows if row.path in sha256_of)


def _read_records(path: Path) -> list[Record]:
    """The rows of a list of files, each with its path."""
    records = read_records(path, ("path", "split", "label", *_SHA256_COLUMNS))
    if any(not record.get("path") for record in records):
        raise UserError(
            f"{path} needs a path in every row, in a column 'path'; its columns are {', '.join(records[0])}",
            "columns: path, and if known split, label, sha256",
        )
    return records
