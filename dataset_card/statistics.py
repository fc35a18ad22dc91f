"""Numbers for the card, counted from the shards: nothing in a card is typed by hand."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from builders.dataset_folder import DescriptionSet
from builders.features import Features, features_of
from dataset_card.terms import Terms

_COUNTED = [
    "label",
    "description",
    "finish_reason",
    "temperature",
    "n_image_tokens",
    "n_prompt_tokens",
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
    `words` and the like count rows by the number of words. `clean_labels` is `labels` by `split_clean`; `findings`
    counts rows by each finding's name and value, `reviews` by a reviewer's mark; empty where the set has none.
    """

    features: Features
    splits: dict[str, SplitSize]
    n_rows: int
    n_distinct: int
    n_copies: int
    n_balanced: int
    labels: dict[str, Counter[str]]
    clean_labels: dict[str, Counter[str]]
    official: Counter[str]
    clean: Counter[str]
    words: Counter[int]
    characters: Counter[int]
    image_tokens: Counter[int]
    prompt_tokens: Counter[int]
    output_tokens: Counter[int]
    temperatures: Counter[float]
    finish_reasons: Counter[str]
    flags: Counter[str]
    findings: dict[str, Counter[str]]
    reviews: Counter[str]
    terms: Terms


def count_set(described: DescriptionSet) -> SetStatistics:
    """Count one description set, reading every column but the photographs, a few thousand rows at a time."""
    shards = [shard for files in described.shards.values() for shard in files]
    features = features_of(pq.read_schema(shards[0]))
    names: list[str] = features["label"]["names"]
    labels, clean_labels = ({name: Counter[str]() for name in names} for _ in range(2))
    official, clean, finish_reasons, flags = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    words, characters, temperatures = Counter[int](), Counter[int](), Counter[float]()
    image_tokens, prompt_tokens, output_tokens = Counter[int](), Counter[int](), Counter[int]()
    findings: dict[str, Counter[str]] = {}
    distinct: set[bytes] = set()
    terms = Terms()
    n_copies = n_balanced = 0
    reviews = Counter[str]()
    columns = _COUNTED + [name for name in ("findings", "review") if name in features]
    for split, files in described.shards.items():
        for rows in _batches(files, columns):
            texts: list[str] = rows["description"]
            here = ["" if number is None else names[number] for number in rows["label"]]
            for label, n_rows in Counter(here).items():
                labels.setdefault(label, Counter())[split] += n_rows
            for (label, is_clean), n_rows in Counter(zip(here, rows["split_clean"], strict=True)).items():
                clean_labels.setdefault(label, Counter())[is_clean] += n_rows
            words.update(len(text.split()) for text in texts)
            characters.update(map(len, texts))
            distinct.update(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
            for label, text in zip(here, texts, strict=True):
                terms.add(label, text)
            image_tokens.update(rows["n_image_tokens"])
            prompt_tokens.update(rows["n_prompt_tokens"])
            output_tokens.update(rows["n_output_tokens"])
            temperatures.update(rows["temperature"])
            official.update(rows["split_official"])
            clean.update(rows["split_clean"])
            finish_reasons.update(rows["finish_reason"])
            flags.update(chain.from_iterable(rows["flags"]))
            for text in rows.get("findings", ()):
                _count_findings(findings, text)
            reviews.update(filter(None, rows.get("review", ())))
            n_copies += sum(map(bool, rows["duplicate_group"]))
            n_balanced += sum(rows["in_balanced_subset"])
    return SetStatistics(
        features=features,
        splits={split: _size(files) for split, files in described.shards.items()},
        n_rows=words.total(),
        n_distinct=len(distinct),
        n_copies=n_copies,
        n_balanced=n_balanced,
        labels=labels,
        clean_labels=clean_labels,
        official=official,
        clean=clean,
        words=words,
        characters=characters,
        image_tokens=image_tokens,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        temperatures=temperatures,
        finish_reasons=finish_reasons,
        flags=flags,
        findings=findings,
        reviews=reviews,
        terms=terms,
    )


def _batches(files: list[Path], columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Some thousand rows at a time, column by column."""
    for file in files:
        with pq.ParquetFile(file) as shard:
            for batch in shard.iter_batches(batch_size=5_000, columns=columns):
                yield batch.to_pydict()


def _count_findings(findings: dict[str, Counter[str]], text: str) -> None:
    """Add one row's findings: a list counts for each of its values."""
    if not text:
        return
    for name, value in json.loads(text).items():
        findings.setdefault(name, Counter()).update(map(str, value if isinstance(value, list) else [value]))


def _size(files: list[Path]) -> SplitSize:
    footers = [pq.read_metadata(file) for file in files]
    return SplitSize(
        n_rows=sum(footer.num_rows for footer in footers),
        file_bytes=sum(file.stat().st_size for file in files),
        n_bytes=sum(
            footer.row_group(group).total_byte_size for footer in footers for group in range(footer.num_row_groups)
        ),
    )


def spread(numbers: Iterable[int] | Counter[int]) -> Spread:
    """Minimum, median, mean, 95th percentile (nearest rank) and maximum, of numbers or of counts by number."""
    counts = Counter(numbers)
    n = counts.total()
    if not n:
        return Spread(0, 0.0, 0.0, 0, 0)
    ordered = sorted(counts.items())
    return Spread(
        minimum=ordered[0][0],
        median=(_ranked(ordered, (n + 1) // 2) + _ranked(ordered, n // 2 + 1)) / 2,
        mean=sum(number * count for number, count in ordered) / n,
        percentile_95=_ranked(ordered, math.ceil(0.95 * n)),
        maximum=ordered[-1][0],
    )


def _ranked(ordered: list[tuple[int, int]], rank: int) -> int:
    """The number at `rank`, counted from 1, among numbers given with their counts."""
    for number, count in ordered:
        rank -= count
        if rank <= 0:
            return number
    raise ValueError("the rank is beyond the last number")
