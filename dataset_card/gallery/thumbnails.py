"""Thumbnails of a dataset's photographs, one per content, from local files or from the dataset's own bytes."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pyarrow.parquet as pq

from builders.dataset_folder import DescriptionSet
from builders.decode import BadImageError
from builders.index import default_workers
from builders.sources import open_source
from builders.thumbnail import Thumbnail, thumbnail
from builders.workers import ordered_map

Photograph = tuple[str, bytes]  # the sha256 of the bytes, in hex, and the bytes


@dataclass(slots=True)
class Unshown:
    """Photographs without a picture: paths that are `missing` or `changed` here, and reasons by sha256."""

    missing: list[str] = field(default_factory=list[str])
    changed: list[str] = field(default_factory=list[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])


def local_photographs(images: str, wanted: Iterable[tuple[str, str]], unshown: Unshown) -> Iterator[Photograph]:
    """The bytes of every wanted photograph (path, sha256) from local files, once per content, each verified.

    Copies stand for each other. What cannot be had is added to `unshown` on the way.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for path, sha256 in wanted:
        places[sha256].append(path)
    with open_source(images) as source:
        for sha256, paths in places.items():
            missing: list[str] = []
            changed: list[str] = []
            for path in paths:
                try:
                    photograph = source.read(path)
                except OSError:
                    missing.append(path)
                    continue
                if hashlib.sha256(photograph).hexdigest() == sha256:
                    yield sha256, photograph
                    break
                changed.append(path)
            else:
                unshown.missing += missing
                unshown.changed += changed


def embedded_photographs(described: DescriptionSet, wanted: Iterable[str], unshown: Unshown) -> Iterator[Photograph]:
    """The bytes that a set's own `image` column holds, once per wanted sha256 and verified; none without the column."""
    left = set(wanted)
    for shards in described.shards.values():
        for shard in shards:
            with pq.ParquetFile(shard) as file:
                if "image" not in file.schema_arrow.names:
                    return
                for batch in file.iter_batches(batch_size=50, columns=["image_sha256", "path", "image"]):
                    for row in batch.to_pylist():
                        sha256 = row["image_sha256"]
                        if sha256 not in left:
                            continue
                        left.remove(sha256)
                        if hashlib.sha256(row["image"]["bytes"]).hexdigest() == sha256:
                            yield sha256, row["image"]["bytes"]
                        else:
                            unshown.changed.append(row["path"])


def make_thumbnails(
    photographs: Iterable[Photograph],
    n_photographs: int,
    size_px: int,
    keep: Callable[[str, Thumbnail], object],
    unshown: Unshown,
) -> None:
    """Make a thumbnail of each photograph in processes and give it to `keep(sha256, thumbnail)`, in order."""
    under_way: deque[str] = deque()

    def each_photograph() -> Iterator[bytes]:
        for sha256, data in photographs:
            under_way.append(sha256)
            yield data

    n_workers = default_workers(n_photographs)
    results = ordered_map(partial(_thumbnail, size_px), each_photograph(), n_workers, ahead=8 * max(1, n_workers))
    for made in results:
        sha256 = under_way.popleft()
        if isinstance(made, Thumbnail):
            keep(sha256, made)
        else:
            unshown.refused[sha256] = str(made)


def _thumbnail(size_px: int, data: bytes) -> Thumbnail | str:
    """The thumbnail, or why there is none."""
    try:
        return thumbnail(data, size_px)
    except BadImageError as error:
        return str(error)
