"""One process per run folder, or one per shard of it: locks that go when their process goes, however it dies."""

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from annotate.shard import Shard
from builders.errors import UserError


@contextmanager
def alone(run_folder: Path, shard: Shard | None) -> Generator[None]:
    """Hold the run folder for this process, or with a `shard` only that shard, beside processes with other ones.

    Whoever comes first removes half-written files of processes that were killed. Raises `UserError` where another
    process has it, or where the folder cannot be written.
    """
    name = "another annotate process" if shard is None else f"another annotate process for {shard}"
    with _open(run_folder / ".lock") as whole:
        with suppress(BlockingIOError):
            fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in run_folder.rglob(".*.part"):
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
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, against | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _open(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}", "choose another --out") from error


def _lock(file: IO[str], how: int, run_folder: Path, by: str) -> None:
    """Take the lock; wait a moment, because `status` and the first of several shards hold the whole for an instant."""
    for _ in range(5 if how == fcntl.LOCK_EX else 20):
        with suppress(BlockingIOError):
            return fcntl.flock(file, how | fcntl.LOCK_NB)
        time.sleep(0.05)
    try:
        return fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{run_folder} is in use by {by}", "wait for it, or use another --out") from error
