"""Read a run folder: one description set, its provenance, and each image's one description."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from builders.errors import UserError
from builders.files import read_json
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
    if not (path / "run.json").is_file():
        raise UserError(f"{path} is not a run folder: it holds no run.json", "vl-dermnet annotate IMAGES --out RUN")
    summary = path / "summary.json"
    return Run(
        path=path,
        run=read_run_json(path),
        summary=read_json(summary) if summary.is_file() else None,
        index=read_index(path / "index.parquet"),
        descriptions=one_per_image(row for part in part_files(path) for row in read_part(part)),
    )


def read_run_json(path: Path) -> dict[str, Any]:
    """run.json of the run folder at `path`. Raises `UserError` where it is damaged."""
    value: Any = read_json(path / "run.json")
    lacking = [] if isinstance(value, dict) else ["everything"]
    lacking = lacking or [key for key in RUN_KEYS if key not in value]
    if lacking:
        raise UserError(f"{path / 'run.json'} is damaged: it lacks {', '.join(lacking)}")
    return value


def part_files(path: Path) -> list[Path]:
    """The finished parts of a run folder, those of shards in folders of their own, in the order of their names."""
    return sorted((path / "parts").rglob("*.parquet"))


def read_part(part: Path) -> list[Description]:
    """The rows of one part. Raises `UserError` where the file is damaged or holds other columns."""
    try:
        table = pq.read_table(part)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the part {part}: {error}", f"rm '{part}' and run annotate again") from error
    if table.schema.names != DESCRIPTION_SCHEMA.names:
        raise UserError(f"{part} is not a part of a run: its columns are {', '.join(table.schema.names)}")
    return descriptions(table)


def one_per_image(rows: Iterable[Description]) -> dict[str, Description]:
    """One description per `image_id`: computing is at-least-once, reading is exactly-once.

    Where a row was asked again, an answer beats a failure, and a later row beats an earlier one.
    """
    best: dict[str, Description] = {}
    for row in rows:
        known = best.get(row.image_id)
        if known is None or rank(row) > rank(known):
            best[row.image_id] = row
    return best


class Ranked(Protocol):
    """What decides which of several rows of one image counts."""

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


def rank(row: Ranked) -> tuple[bool, int, str]:
    """The greatest of several rows of one image counts: an answer before a failure, a later one before an earlier."""
    return (row.status != "failed", row.attempt, row.described_at)
