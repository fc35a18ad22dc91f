"""Every row of one set, row group by row group: what each holds, and the little that is kept of it for later rules."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from builders.check.fault import Fault, row_place, visible
from builders.check.findings import Vocabulary
from builders.check.row_rules import CLEAN, Row, complaints, malformed
from builders.check.shards import Shard

CheckPhotographs = Callable[[Shard, list[Row]], Iterator[Fault]]
_SHARED = ("image_sha256", "path", "label", "duplicate_group", "split_official", "split_clean", "in_balanced_subset")


def _numbers(code: str) -> "array[int]":
    return array(code)


@dataclass(slots=True)
class Tally:
    """What is kept of the rows of one set: 52 bytes each, whatever their texts and photographs hold.

    One entry per well-formed row. `ids`, `digests` and `groups` are 64 bits of `image_id`, `image_sha256` and of a hash
    of `duplicate_group` (0 for none); `splits`, `official` and `clean` places in `CLEAN`; `facts` a hash over all that
    every set must say alike of one photograph. `rows` counts all rows by split, `flags` rows by
    flag, `n_reviewed` those with a reviewer's mark or note. `is_whole` is
    false where a row or a row group could not be used.
    """

    ids: "array[int]" = field(default_factory=lambda: _numbers("Q"))
    digests: "array[int]" = field(default_factory=lambda: _numbers("Q"))
    groups: "array[int]" = field(default_factory=lambda: _numbers("Q"))
    facts: "array[int]" = field(default_factory=lambda: _numbers("Q"))
    labels: "array[int]" = field(default_factory=lambda: _numbers("q"))
    splits: "array[int]" = field(default_factory=lambda: _numbers("b"))
    official: "array[int]" = field(default_factory=lambda: _numbers("b"))
    clean: "array[int]" = field(default_factory=lambda: _numbers("b"))
    balanced: "array[int]" = field(default_factory=lambda: _numbers("b"))
    rows: Counter[str] = field(default_factory=Counter[str])
    flags: Counter[str] = field(default_factory=Counter[str])
    n_reviewed: int = 0
    rows_sha256: str = ""
    is_whole: bool = True

    def add(self, row: Row, split: str) -> None:
        """Remember a well-formed row of a file of `split`."""
        self.ids.append(int(row["image_id"], 16))
        self.digests.append(int(row["image_sha256"][:16], 16))
        self.groups.append(_hash(row["duplicate_group"]) if row["duplicate_group"] else 0)
        self.facts.append(_hash(json.dumps([split, *(row[name] for name in _SHARED)])))
        self.labels.append(-1 if row["label"] is None else row["label"])
        self.splits.append(CLEAN.index(split))
        self.official.append(CLEAN.index(row["split_official"]))
        self.clean.append(CLEAN.index(row["split_clean"]))
        self.balanced.append(row["in_balanced_subset"])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def check_rows(
    shards: list[Shard], features: datasets.Features, vocabulary: Vocabulary | None, check_photographs: CheckPhotographs
) -> tuple[Tally, list[Fault]]:
    """Read every row once, one row group in memory; `check_photographs` gets each group with its photographs."""
    tally, faults = Tally(), list[Fault]()
    digest = hashlib.sha256(json.dumps(features.to_dict(), sort_keys=True).encode())  # as builders.build computes it
    last: dict[str, str] = {}
    for shard in shards:
        for rows in _row_groups(shard):
            if isinstance(rows, Fault):
                faults.append(rows)
                tally.is_whole = False
                continue
            faults += check_photographs(shard, rows)
            for row in rows:
                row.pop("image", None)
                digest.update(json.dumps(row, sort_keys=True).encode())
                tally.rows[shard.split] += 1
                tally.n_reviewed += bool(row.get("review") or row.get("review_note"))
                tally.flags.update(flag for flag in row["flags"] or () if flag)
                faults += _check_row(row, shard, features["label"].names, vocabulary, tally, last)
    tally.rows_sha256 = digest.hexdigest()
    return tally, faults


def _row_groups(shard: Shard) -> Iterator[list[Row] | Fault]:
    """The rows of each row group, their pages' checksums verified; a fault in place of one that cannot be read."""
    try:
        with pq.ParquetFile(shard.path, page_checksum_verification=True) as file:
            for number in range(file.num_row_groups):
                try:
                    yield file.read_row_group(number).to_pylist()
                except (OSError, ValueError, pa.ArrowException) as error:
                    yield _unreadable(shard, f"row group {number}", error)
    except (OSError, ValueError, pa.ArrowException) as error:
        yield _unreadable(shard, "", error)


def _unreadable(shard: Shard, place: str, error: Exception) -> Fault:
    return Fault("rows", shard.name, place, f"cannot be read: {visible(str(error))}", "pages whose checksums fit")


def _check_row(
    row: Row,
    shard: Shard,
    label_names: list[str],
    vocabulary: Vocabulary | None,
    tally: Tally,
    last: dict[str, str],
) -> Iterator[Fault]:
    """One row's faults; a well-formed one is added to the tally. `last` holds each split's latest `image_id`."""
    place = row_place(row["image_id"])
    wrong = malformed(row, len(label_names))
    if not wrong:
        wrong = [*complaints(row, shard.split, label_names), *(vocabulary.complaints(row) if vocabulary else ())]
        before = last.get(shard.split, "")
        if row["image_id"] <= before:
            yield Fault("rows", shard.name, place, f"it follows {before}", "rows sorted by image_id")
        last[shard.split] = row["image_id"]
        tally.add(row, shard.split)
    else:
        tally.is_whole = False
    for column, seen, allowed in wrong:
        tally.is_whole &= column != "findings"  # not even JSON of the right form: nobody can count it
        yield Fault("rows", shard.name, f"{place}, {column}", seen, allowed)
