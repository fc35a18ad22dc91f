"""Index a source: every file decoded to its last pixel, hashed, and either `ok` or `refused` with a reason."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.decode import BadImageError, decode_rgb
from builders.errors import UserError
from builders.files import check_writable, column_names, read_batches, write_table
from builders.schema import INDEX_SCHEMA, SCHEMA_VERSION, IndexRow, image_id_of, index_rows, to_table
from builders.sources import Source, open_source, opened, pinned
from builders.sources.layout import IMAGE_SUFFIXES, split_and_label
from builders.workers import WorkerDiedError, ordered_map

Track = Callable[[Iterable[IndexRow], int, str], Iterable[IndexRow]]


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What an index holds, counted: files by status, splits, labels; copies and contradictions by their bytes.

    `n_surplus_copies` counts files whose bytes stand earlier too; `conflicts` lists, per photograph that stands under
    more than one label, the paths of all its copies; `reasons` counts refusals by reason.
    """

    n_files: int
    n_ok: int
    n_refused: int
    n_per_split: dict[str, int]
    n_per_label: dict[str, int]
    n_surplus_copies: int
    n_copies_across_splits: int
    conflicts: list[list[str]] = field(default_factory=list[list[str]])
    reasons: dict[str, int] = field(default_factory=dict[str, int])


def index_images(images: str | Path, n_workers: int | None = None, track: Track | None = None) -> list[IndexRow]:
    """The index of IMAGES, sorted by path, decoded by `n_workers` processes (default: one per core, 0 for a handful).

    `track(rows, total, what)` may wrap the rows as they are made, to show progress.
    Raises `UserError` where the source holds no image file at all.
    """
    images = pinned(images)
    with open_source(images) as source:
        paths = list(source.paths())
    if not paths:
        raise no_image_error(images)
    rows = iter_index(images, paths, n_workers)
    return sorted(track(rows, len(paths), "indexing") if track else rows, key=lambda row: row.path)


def no_image_error(images: str | Path) -> UserError:
    """The error for a source without any image file."""
    return UserError(
        f"no image file in {images}: looked for names ending in {', '.join(sorted(IMAGE_SUFFIXES))}, in all folders",
        "point to the folder that holds train/ and test/, or one folder per class",
    )


def iter_index(images: str | Path, paths: Iterable[str], n_workers: int | None = None) -> Iterator[IndexRow]:
    """Index rows of the given paths of a source, in their order, computed in processes."""
    paths = list(paths)
    if n_workers is None:
        n_workers = default_workers(len(paths))
    results = ordered_map(partial(index_one, pinned(images)), paths, n_workers, ahead=8 * max(1, n_workers))
    for path, result in zip(paths, results, strict=True):
        yield _refuse(path, b"", str(result)) if isinstance(result, WorkerDiedError) else result


def stale_paths(
    source: Source, paths: list[str], known: list[IndexRow], made_at_ns: int, suspects: Collection[str] = ()
) -> list[str]:
    """Paths that an index made at `made_at_ns` does not know, knows with another length, or that changed since.

    Those whose `image_id` is among the `suspects` are stale in any case.
    """
    n_bytes = {row.image_id: row.n_bytes for row in known if row.image_id not in suspects}

    def is_stale(path: str) -> bool:
        try:
            has_changed = source.modified_ns(path) > made_at_ns
            return has_changed or n_bytes.get(image_id_of(path)) != source.size(path)
        except OSError:
            return True

    return [path for path in paths if is_stale(path)]


def default_workers(n_items: int) -> int:
    """One process per usable core; none where starting them costs more than the work."""
    return n_cores() if n_items >= 64 else 0


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def index_one(images: str, path: str) -> IndexRow:
    """The index row of one file: read, hashed, decoded to its last pixel."""
    try:
        data = opened(images).read(path)
    except OSError as error:
        return _refuse(path, b"", f"cannot be read: {error.strerror or error}")
    try:
        image, image_format = decode_rgb(data)
    except BadImageError as error:
        return _refuse(path, data, str(error))
    if not _is_utf8(path):
        return _refuse(path, data, "the file name is not valid UTF-8; rename it")
    return _row(path, data, width_px=image.width, height_px=image.height, format=image_format, status="ok", reason="")


def _refuse(path: str, data: bytes, reason: str) -> IndexRow:
    return _row(path, data, width_px=0, height_px=0, format="", status="refused", reason=reason)


def _row(path: str, data: bytes, **facts: Any) -> IndexRow:
    split, label = split_and_label(path)
    return IndexRow(
        image_id=image_id_of(path),
        image_sha256=hashlib.sha256(data).hexdigest() if data else "",
        path=_printable(path),
        split=split,
        label=_printable(label),
        n_bytes=len(data),
        **facts,
    )


def _is_utf8(path: str) -> bool:
    return _printable(path) == path


def _printable(text: str) -> str:
    """`text` with bytes that are no UTF-8 written as `\\xNN`: Arrow and JSON hold UTF-8 only."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def summarise(rows: list[IndexRow]) -> IndexSummary:
    """Count an index: statuses, splits, labels, copies and contradictions."""
    ok = [row for row in rows if row.status == "ok"]
    copies: dict[str, list[IndexRow]] = {}
    for row in ok:
        copies.setdefault(row.image_sha256, []).append(row)
    groups = [group for group in copies.values() if len(group) > 1]
    return IndexSummary(
        n_files=len(rows),
        n_ok=len(ok),
        n_refused=len(rows) - len(ok),
        n_per_split=_count(row.split for row in ok),
        n_per_label=_count(row.label for row in ok),
        n_surplus_copies=sum(len(group) - 1 for group in groups),
        n_copies_across_splits=sum(1 for group in groups if len({row.split for row in group}) > 1),
        conflicts=[[row.path for row in group] for group in groups if len({row.label for row in group}) > 1],
        reasons=_count(row.reason for row in rows if row.status == "refused"),
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))


def check_index_file(file: Path) -> None:
    """Raise `UserError` unless an index can be written to `file`: a new file, or an older index to replace."""
    if file.exists() and not file.is_file():
        raise UserError(f"cannot write an index to {file}: it is there and is not a file", "--out index.parquet")
    if file.exists():
        try:
            read_index(file)  # never somebody's other file
        except UserError as error:
            what = str(error).partition("\n")[0]
            raise UserError(f"{what}; nothing was overwritten", f"rm '{file}', or choose another --out") from error
    check_writable(file)


def write_index(file: Path, rows: list[IndexRow]) -> None:
    """Write an index as one Parquet file, atomically; the same rows give the same bytes."""
    schema = INDEX_SCHEMA.with_metadata({"vl_dermnet_schema_version": str(SCHEMA_VERSION)})
    write_table(file, to_table(rows, schema))


def read_index(file: Path) -> list[IndexRow]:
    """Read an index file. Raises `UserError` where it is not one."""
    return list(rows_of_index(file))


def rows_of_index(file: Path) -> Iterator[IndexRow]:
    """The rows of an index file, some thousand in memory at a time. Raises `UserError` where it is not one."""
    try:
        names = column_names(file)
        if names == INDEX_SCHEMA.names:
            yield from index_rows(read_batches(file))
            return
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {file} as an index: {error}", "vl-dermnet index IMAGES --out FILE") from error
    raise UserError(
        f"{file} is not an index: its columns are {', '.join(names)}; an index has {', '.join(INDEX_SCHEMA.names)}",
        "vl-dermnet index IMAGES --out FILE",
    )
