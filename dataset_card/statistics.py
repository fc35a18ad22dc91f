"""Numbers for the card, counted from the shards: nothing in a card is typed by hand."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import pyarrow.parquet as pq

from builders.dataset_folder import DescriptionSet

_COUNTED = [
    "label",
    "description",
    "finish_reason",
    "n_image_tokens",
    "n_output_tokens",
    "flags",
    "duplicate_group",
    "split_official",
    "split_clean",
    "in_balanced_subset",
]


@dataclass(frozen=True, slots=True)
class Spread:
    """How numbers are spread; all 0 where there are none."""

    minimum: int
    median: float
    mean: float
    percentile_95: int
    maximum: int


@dataclass(frozen=True, slots=True)
class SplitSize:
    """One split of one set: rows, bytes in the files, and bytes after decompression as the Parquet footers tell."""

    n_rows: int
    file_bytes: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """What the shards of one description set hold.

    `labels` maps each class name, in the order of its number, to its rows per source split; "" are rows without one.
    `n_copies` counts rows whose photograph stands in the set more than once, `n_distinct` different descriptions.
    """

    features: datasets.Features
    splits: dict[str, SplitSize]
    n_rows: int
    n_distinct: int
    n_copies: int
    n_balanced: int
    labels: dict[str, Counter[str]]
    official: Counter[str]
    clean: Counter[str]
    words: Spread
    characters: Spread
    image_tokens: Spread
    output_tokens: Spread
    finish_reasons: Counter[str]
    flags: Counter[str]


def count_set(described: DescriptionSet) -> SetStatistics:
    """Count one description set, reading every column but the photographs."""
    shards = [shard for files in described.shards.values() for shard in files]
    features = datasets.Features.from_arrow_schema(pq.read_schema(shards[0]))
    names: list[str] = features["label"].names
    labels = {name: Counter[str]() for name in names}
    official, clean, finish_reasons, flags = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    words: list[int] = []
    characters: list[int] = []
    image_tokens: list[int] = []
    output_tokens: list[int] = []
    distinct: set[int] = set()
    n_copies = n_balanced = 0
    for split, files in described.shards.items():
        for row in _rows(files):
            label = "" if row["label"] is None else names[row["label"]]
            labels.setdefault(label, Counter())[split] += 1
            words.append(len(row["description"].split()))
            characters.append(len(row["description"]))
            image_tokens.append(row["n_image_tokens"])
            output_tokens.append(row["n_output_tokens"])
            official[row["split_official"]] += 1
            clean[row["split_clean"]] += 1
            finish_reasons[row["finish_reason"]] += 1
            flags.update(row["flags"])
            distinct.add(hash(row["description"]))
            n_copies += row["duplicate_group"] != ""
            n_balanced += row["in_balanced_subset"]
    return SetStatistics(
        features=features,
        splits={split: _size(files) for split, files in described.shards.items()},
        n_rows=len(words),
        n_distinct=len(distinct),
        n_copies=n_copies,
        n_balanced=n_balanced,
        labels=labels,
        official=official,
        clean=clean,
        words=spread(words),
        characters=spread(characters),
        image_tokens=spread(image_tokens),
        output_tokens=spread(output_tokens),
        finish_reasons=finish_reasons,
        flags=flags,
    )


def _rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        with pq.ParquetFile(file) as shard:
            for batch in shard.iter_batches(batch_size=5_000, columns=_COUNTED):
                yield from batch.to_pylist()


def _size(files: list[Path]) -> SplitSize:
    footers = [pq.read_metadata(file) for file in files]
    return SplitSize(
        n_rows=sum(footer.num_rows for footer in footers),
        file_bytes=sum(file.stat().st_size for file in files),
        n_bytes=sum(
            footer.row_group(group).total_byte_size for footer in footers for group in range(footer.num_row_groups)
        ),
    )


def spread(numbers: list[int]) -> Spread:
    """Minimum, median, mean, 95th percentile (nearest rank) and maximum."""
    if not numbers:
        return Spread(0, 0.0, 0.0, 0, 0)
    ordered = sorted(numbers)
    return Spread(
        minimum=ordered[0],
        median=float(median(ordered)),
        mean=sum(ordered) / len(ordered),
        percentile_95=ordered[math.ceil(0.95 * len(ordered)) - 1],
        maximum=ordered[-1],
    )
