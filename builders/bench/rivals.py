"""What index and build are compared with, each a process: `python -m builders.bench.rivals NAME FOLDER …`.

Each prints one line of JSON: what it did, and the seconds of its work alone, without the start of Python.
"""

import hashlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from builders.index import index_images
from builders.workers import NICENESS

SPLITS = ("train", "test")
BATCH_ROWS = 100  # what datasets.push_to_hub takes for rows with an image
SHARD_BYTES = 500_000_000  # and its shards


def imagefolder(folder: str, out: str, cache: str, with_bytes: str) -> dict[str, Any]:
    """`datasets` imagefolder to Parquet; `with_bytes` "yes": photographs put in as `Dataset.push_to_hub` does.

    `Dataset.to_parquet` alone writes the paths of the files and none of their bytes.
    """
    from datasets import load_dataset
    from datasets.table import embed_table_storage

    loaded: Any = load_dataset(
        "imagefolder", data_files={split: f"{folder}/{split}/**" for split in SPLITS}, cache_dir=cache
    )
    Path(out).mkdir(parents=True)
    for split, rows in loaded.items():
        n_bytes = sum(path.stat().st_size for path in Path(folder, split).rglob("*") if path.is_file())
        n_shards = n_bytes // SHARD_BYTES + 1 if with_bytes == "yes" else 1
        for number in range(n_shards):
            shard = rows.shard(num_shards=n_shards, index=number, contiguous=True)
            if with_bytes == "yes":
                shard = shard.with_format("arrow").map(
                    embed_table_storage, batched=True, batch_size=BATCH_ROWS, keep_in_memory=True
                )
                shard = shard.with_format(None)
            shard.to_parquet(f"{out}/{split}-{number:05d}.parquet", batch_size=BATCH_ROWS)
    return {"n_images": sum(len(rows) for rows in loaded.values())}


def pillow(folder: str, share: str = "0/1") -> dict[str, Any]:
    """One thread decodes each file to its last pixel; `share` I/N takes every N-th file, from the I-th."""
    os.nice(NICENESS)  # as the workers of the index
    paths = _paths(folder, share)
    for path in paths:
        with Image.open(path) as image:
            image.load()
    return {"n_images": len(paths)}


def pillow_sha256(folder: str) -> dict[str, Any]:
    """The same with the sha256 of each file."""
    os.nice(NICENESS)
    paths = _paths(folder, "0/1")
    digests: set[str] = set()
    for path in paths:
        data = path.read_bytes()
        digests.add(hashlib.sha256(data).hexdigest())
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    return {"n_images": len(paths)}


def index(folder: str) -> dict[str, Any]:
    """The index of `vl-dermnet index`, the start of its worker processes included."""
    return {"n_images": len(index_images(folder))}


RIVALS: dict[str, Callable[..., dict[str, Any]]] = {
    "imagefolder": imagefolder,
    "pillow": pillow,
    "pillow_sha256": pillow_sha256,
    "index": index,
}


def _paths(folder: str, share: str) -> list[Path]:
    """The images of both splits, sorted."""
    number, n_shares = map(int, share.split("/"))
    paths = [path for split in SPLITS for path in Path(folder, split).rglob("*.jpg")]
    return sorted(paths)[number::n_shares]


def _cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(name: str, *words: str) -> None:
    """Run one and print what it says of itself."""
    began_s, began_cpu_s = time.monotonic(), _cpu_s()
    done = RIVALS[name](*words)
    seconds = {"wall_s": time.monotonic() - began_s, "cpu_s": _cpu_s() - began_cpu_s}
    sys.stdout.write(json.dumps(done | seconds) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
