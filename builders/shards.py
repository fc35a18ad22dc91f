"""Parquet shards, written by hand: one schema, original image bytes, and the same bytes for the same rows.

`Dataset.push_to_hub` would drop image sub-folders and hold a second copy of everything; so shards are written here, as
a stream, and carry the features of `datasets` in their Arrow metadata: `load_dataset` needs no script.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from builders.columns import Row, table_of
from builders.errors import UserError
from builders.features import Features, arrow_schema
from builders.files import sync_folder, write_atomic

# The Hub's viewer reads at most 300 MB to show a page of rows, and a reader of one row decodes its whole group.
MAX_ROWS_WITH_IMAGES = 100
MAX_ROWS_WITHOUT = 5_000
MAX_GROUP_BYTES = 64 * 1024**2
FLUSH_BYTES = 32 * 1024**2
# The chunk limits of `datasets` (config.DEFAULT_CDC_OPTIONS): pages end where the content says so, so that a changed
# row changes few chunks of a deduplicating store.
_CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
_DICTIONARY = ["label", "finish_reason", "flags.list.element", "split_official", "split_clean"]


class Digest(Protocol):
    """What takes bytes, of `hashlib`."""

    def update(self, data: bytes, /) -> object:
        """Take more of them."""
        ...


def write_shards(
    folder: Path, split: str, rows: Iterable[Row], features: Features, shard_bytes: int
) -> dict[Path, str]:
    """Write `rows`, sorted by `image_id` already, as `<split>-00000-of-0000N.parquet`; each shard with its sha256.

    A shard is closed before the row that would take it over `shard_bytes` (images and text, uncompressed); a row is
    never split. No rows, no files. At most two row groups are in memory: one is written while the next is gathered.
    """
    unnamed: dict[Path, str] = {}
    for number, shard_rows in groupby(rows, key=_Cut(max_rows=None, max_bytes=shard_bytes)):
        digest = hashlib.sha256()
        path = folder / f"{split}-{number:05d}.unnamed"
        write_atomic(path, partial(_write_shard, rows=shard_rows, features=features, digest=digest))
        unnamed[path] = digest.hexdigest()
    shards: dict[Path, str] = {}
    for number, (path, sha256) in enumerate(unnamed.items()):
        shard = folder / f"{split}-{number:05d}-of-{len(unnamed):05d}.parquet"
        path.replace(shard)
        shards[shard] = sha256
    if shards:
        sync_folder(folder)
    return shards


def _write_shard(path: Path, rows: Iterator[Row], features: Features, digest: Digest) -> None:
    schema = arrow_schema(features)
    with_images = "image" in features
    leaves = _leaf_columns(features)
    max_rows = MAX_ROWS_WITH_IMAGES if with_images else MAX_ROWS_WITHOUT
    options: dict[str, Any] = {
        # JPEG does not compress, and only plain pages keep the bytes of a photograph the same in every shard
        "compression": {leaf: "NONE" if leaf.startswith("image.") else "SNAPPY" for leaf in leaves},
        "column_encoding": {"image.bytes": "PLAIN"} if with_images else None,
        "use_dictionary": _DICTIONARY,
        "write_statistics": [leaf for leaf in leaves if leaf != "image.bytes"],
        "write_page_index": True,
        "write_page_checksum": True,
        "use_content_defined_chunking": _CHUNKING,
        "sorting_columns": [pq.SortingColumn(leaves.index("image_id"))],
    }
    with (
        path.open("wb") as file,
        _flushed(file) as flush,
        pq.ParquetWriter(pa.PythonFile(_Hashed(file, digest, flush), mode="w"), schema, **options) as writer,
        ThreadPoolExecutor(max_workers=1) as aside,
    ):
        written = aside.submit(lambda: None)
        for _, group in groupby(rows, key=_Cut(max_rows=max_rows, max_bytes=MAX_GROUP_BYTES)):
            table = table_of(list(group), schema)
            written.result()
            written = aside.submit(writer.write_table, table)
        written.result()


@contextmanager
def _flushed(file: BinaryIO) -> Generator[Callable[[], None]]:
    """A function that has the system write to the disk what the file holds so far, while more of it is made.

    So the last sync, which makes the file safe, does not wait for all of it. An error of the disk is raised by the next
    call or at the end: the system tells it once, and a later sync may know nothing of it.
    """
    with ThreadPoolExecutor(max_workers=1) as disk:
        under_way = [disk.submit(lambda: None)]

        def flush() -> None:
            if under_way[0].done():
                under_way[0].result()
                file.flush()
                under_way[0] = disk.submit(os.fsync, file.fileno())

        yield flush
        under_way[0].result()


class _Hashed:
    """A file for Arrow to write, front to back, that updates a digest with all that it is given.

    `flush_aside` is called each time that it has grown by FLUSH_BYTES.
    """

    closed = False

    def __init__(self, file: BinaryIO, digest: Digest, flush_aside: Callable[[], None]) -> None:
        self.file = file
        self.digest = digest
        self.flush_aside = flush_aside
        self.n_unflushed = 0

    def write(self, content: bytes) -> int:
        """Write all of it."""
        self.digest.update(content)
        self.n_unflushed += len(content)
        if self.n_unflushed >= FLUSH_BYTES:
            self.n_unflushed = 0
            self.flush_aside()
        return self.file.write(content)

    def flush(self) -> None:
        """Hand everything to the system."""
        self.file.flush()

    def close(self) -> None:
        """Whoever opened the file closes it."""
        self.flush()


class _Cut:
    """A key for `groupby`: the number of the piece a row falls into, pieces being cut by rows and by bytes."""

    def __init__(self, max_rows: int | None, max_bytes: int) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.number = 0
        self.n_rows = 0
        self.n_bytes = 0

    def __call__(self, row: Row) -> int:
        n_bytes = _row_bytes(row)
        if self.n_rows and (self.n_rows == self.max_rows or self.n_bytes + n_bytes > self.max_bytes):
            self.number += 1
            self.n_rows = self.n_bytes = 0
        self.n_rows += 1
        self.n_bytes += n_bytes
        return self.number


def _row_bytes(row: Row) -> int:
    """About what a row takes uncompressed: its image, its text, and 256 bytes for ids, counts and splits."""
    image = len(row["image"]["bytes"]) if "image" in row else 0
    return image + len(row["description"].encode()) + len(row["path"].encode()) + 256


def _leaf_columns(features: Features) -> list[str]:
    """Parquet's names of the leaf columns, in order: what per-column options are keyed by."""
    leaves: list[str] = []
    for name, feature in features.items():
        match feature["_type"]:
            case "Image":
                leaves += [f"{name}.bytes", f"{name}.path"]
            case "List":
                leaves.append(f"{name}.list.element")
            case _:
                leaves.append(name)
    return leaves


def check_same_schema(shards: list[Path]) -> None:
    """Raise `UserError` unless all shards have the same columns and the same features in their metadata.

    `datasets` reads the features of the first shard only: one with another class order loads without an error and
    mislabels every row.
    """
    schemas = {shard: _read_schema(shard) for shard in shards}
    for shard, schema in schemas.items():
        if not schema.equals(schemas[shards[0]], check_metadata=True):
            raise UserError(
                f"{shard} and {shards[0].name} disagree on columns or class names; labels would be mixed up",
                "build the dataset again: `vl-dermnet build`",
            )


def _read_schema(shard: Path) -> Any:
    try:
        return pq.read_schema(shard)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read the shard {shard}: {error}", "build or download the dataset again") from error
