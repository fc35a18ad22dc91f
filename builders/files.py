"""Output that is whole or absent: write beside the target, fsync, rename, fsync the folder."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in `path`'s folder, then move it into place; a crash leaves no half file.

    Raises `UserError` where `path` is a folder or a device, or where its folder cannot be made.
    Source: the rename-after-fsync protocol, https://lwn.net/Articles/457667/
    """
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is there and is not a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise UserError(f"cannot write {path}: its folder cannot be made: {error.strerror}") from error
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Raise `UserError` where no file or folder can be put at `path`, before any work."""
    above = next(each for each in path.resolve().parents if each.exists())
    if not above.is_dir():
        raise UserError(f"cannot write {path}: {above} is not a folder", "choose another --out")
    if not os.access(above, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write to {above}", "choose another --out")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def with_ending(path: Path, ending: str) -> Path:
    """`path` with `ending` behind its name; `with_suffix` would make model-3.json of model-3.1."""
    return path.with_name(f"{path.name}{ending}")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically; keys keep their order."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomic(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """The value of a UTF-8 JSON file. Raises `UserError` where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write `table` as Parquet, atomically."""
    write_atomic(path, lambda part: pq.write_table(table, part))


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file, all of its columns or these.

    Raises `ValueError` where a column is missing. `pyarrow.parquet.read_table` would import pandas on the way, half a
    second, and take a folder named `a=b` for a column.
    """
    with pq.ParquetFile(path) as file:
        missing = set(columns or ()).difference(file.schema_arrow.names)
        if missing:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        return file.read(columns=columns)


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """One Parquet file, some thousand rows at a time; what Arrow kept for reuse goes back to the system at the end."""
    # by default the columns of a row group are read whole, and a file may have one row group
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=64 * 1024) as file:
        yield from file.iter_batches(batch_size=4096)
    pa.default_memory_pool().release_unused()


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file, from its footer."""
    with pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
