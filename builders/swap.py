"""Replace a folder by another in one step: a reader sees the whole old one or the whole new one."""

import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from builders.errors import UserError
from builders.files import check_writable, sync_folder

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def folder_being_built(target: Path) -> Generator[Path, None, None]:
    """An empty folder beside `target` to build in; on a clean exit it takes `target`'s place, else it is removed.

    It is locked meanwhile, so a second writer of the same target is refused, and what a killed one left is cleared.
    """
    check_writable(target)
    target = target.resolve()  # where it is a link, the folder behind it is replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{target.name}.building")
    with _locked(building, target):
        _restore(target)
        _clear(building)
        try:
            yield building
            _sync(building)
            target.mkdir(exist_ok=True)
            with _locked(target, target):  # else another writer could start in the old folder while it is removed
                _swap(building, target)
                shutil.rmtree(building, ignore_errors=True)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            _restore(target)
            raise


@contextmanager
def _locked(folder: Path, target: Path) -> Generator[None, None, None]:
    """Hold the lock on `folder`, which is made if need be. The lock goes with the process, however it ends."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another writer finished between the two lines
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise UserError(f"another process is building {target} right now; wait until it ends") from error
        if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
            break
        os.close(handle)  # it was renamed or removed before the lock was ours
    try:
        yield
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(folder: Path) -> None:
    """Make every file and name below `folder` survive a power cut, before its rename does."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _swap(new: Path, target: Path) -> None:
    if not any(target.iterdir()):
        new.replace(target)  # POSIX: an empty folder is replaced in one step
    elif not _exchange(new, target):
        # No exchange on this system: between these two lines only the set-aside name exists; `_restore` mends that.
        target.rename(_aside(target))
        new.rename(target)
        shutil.rmtree(_aside(target))
    sync_folder(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, where Linux and the file system can. https://man7.org/linux/man-pages/man2/rename.2.html"""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc since 2.28
    if renameat2 is None:
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _restore(target: Path) -> None:
    """After a kill between the two renames of `_swap`: put the old folder back, or remove it if a new one is there."""
    aside = _aside(target)
    if aside.exists():
        if target.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(target)
