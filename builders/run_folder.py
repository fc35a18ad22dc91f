"""Read a run folder: one description set, its provenance, and each image's one description."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from builders.errors import UserError
from builders.files import column_names, read_batches, read_json
from builders.index import read_index
from builders.schema import DESCRIPTION_SCHEMA, Description, IndexRow, descriptions

RUN_KEYS = ("set_name", "fingerprint", "model", "prompt", "engine")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `annotate`: `run` is run.json, `summary` is summary.json or None while the run is unfinished.

    `index` is the index that the run used, sorted by path; `descriptions` maps `image_id` to its one description.
    """

    path: Path
    run: dict[str, Any]
    summary: dict[str, Any] | None
    index: list[IndexRow]
    descriptions: dict[str, Description]


def read_run(path: Path) -> Run:
    """Read the run folder at `path`, finished or not. Raises `UserError` where it is not one."""
    check_run_folder(path)
    summary = path / "summary.json"
    return Run(
        path=path,
        run=read_run_json(path),
        summary=read_json(summary) if summary.is_file() else None,
        index=read_index(path / "index.parquet"),
        descriptions=one_per_image(rows_of_parts(path)),
    )


def check_run_folder(path: Path) -> None:
    """Raise `UserError` where there is no run at `path`."""
    if not (path / "run.json").is_file():
        raise UserError(f"{path} is not a run folder: it holds no run.json", "vl-dermnet annotate IMAGES --out RUN")


def read_run_json(path: Path) -> dict[str, Any]:
    """run.json of the run folder at `path`. Raises `UserError` where it is damaged."""
    fix = "put back a copy of it; without one the run cannot be told from others: annotate again into another --out"
    try:
        value: Any = read_json(path / "run.json")
    except UserError as error:
        raise UserError(str(error), fix) from error
    lacking = [] if isinstance(value, dict) else ["everything"]
    lacking = lacking or [key for key in RUN_KEYS if key not in value]
    if lacking:
        raise UserError(f"{path / 'run.json'} is damaged: it lacks {', '.join(lacking)}", fix)
    return value


def part_files(path: Path) -> list[Path]:
    """The finished parts of a run folder, those of shards in folders of their own, in the order of their names."""
    return sorted((path / "parts").rglob("*.parquet"))


def read_part(part: Path) -> list[Description]:
    """The rows of one part. Raises `UserError` where the file is damaged or holds other columns."""
    return list(_rows_of_part(part))


def rows_of_parts(path: Path) -> Iterator[Description]:
    """The rows of all parts of a run folder, some thousand in memory at a time. Raises `UserError` as `read_part`."""
    for part in part_files(path):
        yield from _rows_of_part(part)


def _rows_of_part(part: Path) -> Iterator[Description]:
    try:
        names = column_names(part)
        if names == DESCRIPTION_SCHEMA.names:
            yield from descriptions(read_batches(part))
            return
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read the part {part}: {error}", f"rm '{part}' and run annotate again") from error
    raise UserError(f"{part} is not a part of a run: its columns are {', '.join(names)}")


class Ranked(Protocol):
    """What decides which of several rows of one image counts."""

    @property
    def image_id(self) -> str:
        """Of the file."""
        ...

    @property
    def image_sha256(self) -> str:
        """Of its bytes when it was asked about."""
        ...

    @property
    def status(self) -> str:
        """`ok`, `refused` or `failed`."""
        ...

    @property
    def attempt(self) -> int:
        """Which ask of this image it was."""
        ...

    @property
    def described_at(self) -> str:
        """UTC, ISO 8601."""
        ...


Row = TypeVar("Row", bound=Ranked)


def one_per_image(rows: Iterable[Row]) -> dict[str, Row]:
    """The one row per `image_id` that counts: computing is at-least-once, reading is exactly-once.

    Only rows of the bytes that were asked about last count, so that no text stands for a photograph that it was not
    written about; of those an answer beats a failure, and a later row beats an earlier one.
    """
    last: dict[str, Row] = {}
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        known = last.get(row.image_id)
        if known is None or _age(row) > _age(known):
            last[row.image_id] = row
        key = (row.image_id, row.image_sha256)
        best[key] = better(row, best.get(key))
    return {image_id: best[image_id, row.image_sha256] for image_id, row in last.items()}


def better(row: Row, known: Row | None) -> Row:
    """Of two rows of the same bytes the one that counts: an answer before a failure, a later one before an earlier."""
    if known is None or (row.status != "failed", *_age(row)) > (known.status != "failed", *_age(known)):
        return row
    return known


def _age(row: Ranked) -> tuple[int, str]:
    return row.attempt, row.described_at
