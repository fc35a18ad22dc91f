"""Write answers as small Parquet files, each whole or absent, away from the engine's thread."""

import re
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from annotate.shard import Shard
from builders.files import write_table
from builders.schema import DESCRIPTION_SCHEMA, Description, to_table


class PartWriter:
    """Rows in, `parts/part-NNNNNN.parquet` out, every `part_rows` rows or `part_seconds` seconds, and at the end.

    A shard's parts lie in a folder of their own. One thread writes while the engine goes on. What it could not write is
    raised by the next `add`, or by `close`.
    """

    def __init__(self, run: Path, part_rows: int, part_seconds: float, shard: Shard | None = None) -> None:
        self._folder = run / "parts" / shard.name if shard else run / "parts"
        self._part_rows, self._part_seconds = part_rows, part_seconds
        # Of a process that was killed: the run folder's lock is ours.
        for leftover in self._folder.glob(".part-*.parquet.[0-9]*.part"):
            leftover.unlink()
        numbers = [re.fullmatch(r"part-(\d+)", part.stem) for part in self._folder.glob("*.parquet")]
        self._next = 1 + max((int(number[1]) for number in numbers if number), default=-1)
        self._rows: list[Description] = []
        self._written_at = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="part-writer")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, rows: Iterable[Description]) -> None:
        """Take rows; copies of one image come in one call, so that no crash separates them."""
        self._rows.extend(rows)
        if len(self._rows) >= self._part_rows or time.monotonic() - self._written_at >= self._part_seconds:
            self.flush()

    def flush(self) -> None:
        """Start writing what is here; wait only for the part before it."""
        self._wait()
        if self._rows:
            path = self._folder / f"part-{self._next:06d}.parquet"
            self._pending = self._thread.submit(write_table, path, to_table(self._rows, DESCRIPTION_SCHEMA))
            self._rows, self._next = [], self._next + 1
        self._written_at = time.monotonic()

    def close(self) -> None:
        """Write the rest and wait until it is on disk."""
        try:
            self.flush()
            self._wait()
        finally:
            self._thread.shutdown()

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()
