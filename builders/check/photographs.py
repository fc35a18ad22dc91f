"""Whether each description still belongs to its photograph: embedded bytes, or local files, against `image_sha256`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.check.fault import Fault, row_place, shown
from builders.check.row_rules import Row, leaves_root, malformed
from builders.check.rows import CheckPhotographs, Tally
from builders.check.shards import Shard
from builders.join_images import hash_images

Numbers = npt.NDArray[np.uint64]


def photograph_check(images: Path | None, earlier: list[Tally], n_labels: int) -> CheckPhotographs:
    """A check of one row group's photographs; local files that the sets in `earlier` name were read already."""
    known = np.concatenate([np.asarray(each.ids, dtype=np.uint64) for each in earlier]) if earlier else None

    def check(shard: Shard, rows: list[Row]) -> Iterator[Fault]:
        rows = [row for row in rows if not malformed(row, n_labels)]
        yield from (fault for row in rows if "image" in row for fault in _check_embedded(shard, row))
        if images is not None:
            inside = [row for row in rows if not leaves_root(row["path"])]
            yield from _check_local(images, shard, inside if known is None else _without(inside, known))

    return check


def _check_embedded(shard: Shard, row: Row) -> Iterator[Fault]:
    image, place = row["image"], f"{row_place(row['image_id'])}, image"
    if image is None or image.get("bytes") is None:
        yield Fault("photographs", shard.name, place, "no bytes", f"the photograph with sha256 {row['image_sha256']}")
        return
    digest = hashlib.sha256(image["bytes"]).hexdigest()
    if digest != row["image_sha256"]:
        yield Fault("photographs", shard.name, place, f"bytes with sha256 {digest}", f"sha256 {row['image_sha256']}")
    if image["path"] != row["path"]:
        yield Fault("photographs", shard.name, f"{place}.path", shown(image["path"]), shown(row["path"]))


def _check_local(images: Path, shard: Shard, rows: list[Row]) -> Iterator[Fault]:
    expected = {row["path"]: row for row in rows}
    for path, digest in hash_images(images, expected):
        row = expected[path]
        if digest != row["image_sha256"]:
            seen = f"no readable {shown(path)}" if digest is None else f"{shown(path)} with sha256 {digest}"
            place = f"{row_place(row['image_id'])}, local photograph"
            yield Fault("photographs", shard.name, place, seen, f"sha256 {row['image_sha256']}")


def _without(rows: list[Row], known: Numbers) -> list[Row]:
    ids = np.array([int(row["image_id"], 16) for row in rows], dtype=np.uint64)
    return [row for row, is_known in zip(rows, np.isin(ids, known), strict=True) if not is_known]
