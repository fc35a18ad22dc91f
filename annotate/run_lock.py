"""One process per run folder, or one per shard of it: locks that go when their process goes, however it dies."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from annotate.shard import Shard
from builders.errors import UserError

# What a run writes, half written: a name, the process, `.part`. Never a wider pattern: --out may be anybody's folder,
# with other runs below it and other programs' downloads in it.
LEFTOVERS = (
    ".run.json.[0-9]*.part",
    ".summary.json.[0-9]*.part",
    ".index.parquet.[0-9]*.part",
    "sessions/.[0-9]*.json.[0-9]*.part",
    "parts/.part-*.parquet.[0-9]*.part",
    "parts/shard-*/.part-*.parquet.[0-9]*.part",
)


@contextmanager
def alone(run_folder: Path, shard: Shard | None) -> Generator[None]:
    """Hold the run folder for this process, or with a `shard` only that shard, beside processes with other ones.

    Whoever comes first removes half-written files of processes that were killed. Raises `UserError` where another
    process has it, or where the folder cannot be written.
    """
    name = "another annotate process" if shard is None else f"another annotate process for {shard}"
    with _open(run_folder / ".lock") as whole:
        with in_turn(run_folder, "start"):  # other shards wait here, however long the first one takes to clean up
            with suppress(BlockingIOError):
                fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for leftover in (path for pattern in LEFTOVERS for path in run_folder.glob(pattern)):
                    leftover.unlink()
            _lock(whole, fcntl.LOCK_EX if shard is None else fcntl.LOCK_SH, run_folder, "another annotate process")
        if shard is None:
            yield
            return
        with _open(run_folder / f".lock-{shard.name}") as part, _open(_lock_of(run_folder, shard.n_shards)) as number:
            _lock(part, fcntl.LOCK_EX, run_folder, name)
            with in_turn(run_folder, "number"):
                _refuse_beside_another_number(run_folder, shard)
                fcntl.flock(number, fcntl.LOCK_SH)
            yield


def _lock_of(run_folder: Path, n_shards: int) -> Path:
    return run_folder / f".lock-of-{n_shards}"


def _refuse_beside_another_number(run_folder: Path, shard: Shard) -> None:
    """Shares of 2 and of 3 overlap: at the same time, images would be described twice."""
    for lock in run_folder.glob(".lock-of-*"):
        if lock != _lock_of(run_folder, shard.n_shards) and _is_locked(lock, fcntl.LOCK_EX):
            other = lock.name.removeprefix(".lock-of-")
            raise UserError(
                f"{run_folder} is in use by shards of {other}, and {shard} is one of {shard.n_shards}",
                f"wait for them, then any number will do; or beside them: --shard I/{other}",
            )


@contextmanager
def in_turn(run_folder: Path, what: str) -> Generator[None]:
    """One process after the other: waits while another does `what` in this run folder."""
    with _open(run_folder / f".lock-{what}") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_held(run_folder: Path) -> bool:
    """Whether an annotate process holds the run folder or a shard of it."""
    return _is_locked(run_folder / ".lock", fcntl.LOCK_EX)


def is_under_way(run_folder: Path, shard: Shard | None) -> bool:
    """Whether an annotate process holds this shard; for None, the whole run folder."""
    if shard is None:
        return _is_locked(run_folder / ".lock", fcntl.LOCK_SH)
    return _is_locked(run_folder / f".lock-{shard.name}", fcntl.LOCK_EX)


def _is_locked(lock: Path, against: int) -> bool:
    """Whether somebody holds it. A lock that is not there, or that cannot be asked about without writing, is free."""
    try:
        with lock.open("r+" if os.access(lock, os.W_OK) else "r") as file:
            fcntl.flock(file, against | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _open(path: Path) -> IO[str]:
    """Open for reading and writing: on NFS a shared lock needs the one, an exclusive lock the other (`man 2 flock`)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}", "choose another --out") from error


def _lock(file: IO[str], how: int, run_folder: Path, by: str) -> None:
    """Take the lock; wait a moment, because `status` holds the whole for an instant."""
    for _ in range(5 if how == fcntl.LOCK_EX else 20):
        with suppress(BlockingIOError):
            return fcntl.flock(file, how | fcntl.LOCK_NB)
        time.sleep(0.05)
    try:
        return fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{run_folder} is in use by {by}", "wait for it, or use another --out") from error
