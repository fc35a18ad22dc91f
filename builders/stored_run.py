"""The rows of a run in a scratch database: its index, and of each image the one description that counts."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from builders.errors import UserError
from builders.files import read_json
from builders.index import rows_of_index
from builders.run_folder import check_run_folder, one_per_image, read_run_json, rows_of_parts
from builders.schema import Description
from builders.scratch import Scratch

_OF_ANSWER = (
    *("image_id", "image_sha256", "status", "reason", "description", "finish_reason", "findings", "described_at"),
    *("n_image_tokens", "n_prompt_tokens", "n_output_tokens", "n_tiles", "attempt", "temperature"),
)
_of_answer = attrgetter(*_OF_ANSWER)
_NO_FLAGS = "[]"  # nearly always


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run whose rows are in a scratch database, under its `number`; `run` and `summary` as in `Run`."""

    number: int
    path: Path
    run: dict[str, Any]
    summary: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What decides which description of an image counts, and where in the database it is."""

    image_id: str
    image_sha256: str
    status: str
    attempt: int
    described_at: str
    number: int


def start_runs(store: Scratch) -> None:
    """Make the tables: files as the indexes have them, all answers, and per run and image the one that counts."""
    store.do(
        "CREATE TABLE file (image_id TEXT, run INTEGER, image_sha256 TEXT, path TEXT, split TEXT, label TEXT,"
        " status TEXT, reason TEXT, PRIMARY KEY (image_id, run)) WITHOUT ROWID"
    )
    store.do(
        "CREATE TABLE answer (number INTEGER PRIMARY KEY, run INTEGER, image_id TEXT, image_sha256 TEXT, status TEXT,"
        " reason TEXT, description TEXT, finish_reason TEXT, findings TEXT, described_at TEXT, n_image_tokens INTEGER,"
        " n_prompt_tokens INTEGER, n_output_tokens INTEGER, n_tiles INTEGER, attempt INTEGER, temperature REAL,"
        " flags TEXT)"
    )
    store.do(
        "CREATE TABLE counted (image_id TEXT, run INTEGER, image_sha256 TEXT, status TEXT, answer INTEGER,"
        " PRIMARY KEY (image_id, run)) WITHOUT ROWID"
    )


def store_run(store: Scratch, number: int, path: Path) -> StoredRun:
    """Read the run folder at `path`, finished or not, into the database. Raises `UserError` where it is not one."""
    check_run_folder(path)
    run, summary, index = read_run_json(path), path / "summary.json", path / "index.parquet"
    files = (
        (row.image_id, number, row.image_sha256, row.path, row.split, row.label, row.status, row.reason)
        for row in rows_of_index(index)
    )
    try:
        store.put("file", files, 8)
    except sqlite3.IntegrityError as error:
        raise UserError(
            f"{index} is damaged: it holds a file twice", "vl-dermnet annotate makes it anew in another --out"
        ) from error
    store.put("answer", (_values(number, row) for row in rows_of_parts(path)), 3 + len(_OF_ANSWER))
    store.put("counted", _counted(store, number), 5)
    return StoredRun(number, path, run, read_json(summary) if summary.is_file() else None)


def _values(run: int, row: Description) -> tuple[Any, ...]:
    return None, run, *_of_answer(row), json.dumps(row.flags) if row.flags else _NO_FLAGS


def _counted(store: Scratch, run: int) -> Iterator[tuple[Any, ...]]:
    answers = store.rows(
        "SELECT image_id, image_sha256, status, attempt, described_at, number FROM answer WHERE run = ?"
        " ORDER BY image_id, number",
        run,
    )
    for image_id, of_image in groupby(answers, key=itemgetter(0)):
        first, *others = of_image
        if not others:
            yield image_id, run, first[1], first[2], first[5]
            continue
        each = one_per_image(_Answer(*values) for values in (first, *others))[image_id]
        yield image_id, run, each.image_sha256, each.status, each.number


def n_described(store: Scratch, run: StoredRun) -> dict[str, int]:
    """How many rows `described` gives, by the source's split."""
    return dict(
        store.rows(
            "SELECT split, COUNT(*) FROM file JOIN counted USING (image_id, run) WHERE run = ?"
            " AND file.status = 'ok' AND counted.status = 'ok' GROUP BY 1 ORDER BY 1",
            run.number,
        )
    )


def described(store: Scratch, run: StoredRun, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split that become dataset rows, file and description both `ok`, sorted by `image_id`.

    Each has the columns of file, description and `derived` by their names; `flags` is a list.
    """
    rows = store.records(
        "SELECT file.image_id, file.image_sha256, path, label, description, findings, finish_reason, temperature,"
        " n_image_tokens, n_prompt_tokens, n_output_tokens, n_tiles, flags, duplicate_group, split_official,"
        " split_clean, in_balanced_subset FROM file"
        # CROSS JOIN: joined in this order, so that nothing has to be sorted
        " CROSS JOIN counted ON counted.image_id = file.image_id AND counted.run = file.run"
        " CROSS JOIN answer ON answer.number = counted.answer"
        " CROSS JOIN derived ON derived.image_id = file.image_id"
        " WHERE file.run = ? AND file.split = ? AND file.status = 'ok' AND counted.status = 'ok'"
        " ORDER BY file.image_id",
        run.number,
        split,
    )
    for row in rows:
        row["flags"] = [] if row["flags"] == _NO_FLAGS else json.loads(row["flags"])
        row["in_balanced_subset"] = bool(row["in_balanced_subset"])
        yield row


def descriptions_of(store: Scratch, run: StoredRun, image_ids: set[str]) -> dict[str, str]:
    """The descriptions of some images, by `image_id`; those that have none are left out."""
    query = (
        "SELECT description FROM file JOIN counted USING (image_id, run) JOIN answer ON answer.number = counted.answer"
        " WHERE file.image_id = ? AND file.run = ? AND file.status = 'ok' AND counted.status = 'ok'"
    )
    found = {image_id: store.column(query, image_id, run.number) for image_id in image_ids}
    return {image_id: texts[0] for image_id, texts in found.items() if texts}


def not_described(store: Scratch, run: StoredRun) -> Iterator[dict[str, str]]:
    """Every other file with what became of it, sorted by path: nothing disappears silently."""
    rows = store.rows(
        "SELECT file.image_id, path, split, label, file.status, file.reason, counted.status, answer.reason FROM file"
        " LEFT JOIN counted USING (image_id, run) LEFT JOIN answer ON answer.number = counted.answer"
        " WHERE file.run = ? AND NOT (file.status = 'ok' AND coalesce(counted.status, '') = 'ok') ORDER BY path",
        run.number,
    )
    for image_id, path, split, label, status, reason, described_status, described_reason in rows:
        if status != "refused":
            status, reason = (
                ("missing", "the run did not get to it")
                if described_status is None
                else (described_status, described_reason)
            )
        yield {
            "image_id": image_id,
            "path": path,
            "split": split,
            "label": label,
            "status": status,
            "reason": reason,
        }
