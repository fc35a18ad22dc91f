"""What file names give away: the class, by looking the name's stem up, and which copies stand on both sides."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from builders.audit.catalogue import SPLIT_ORDER, Catalogue
from builders.audit.copies import surplus_rows
from builders.schema import IndexRow

_TRAILING_NUMBER = re.compile(r"[-_ ]*\d+$")


@dataclass(frozen=True, slots=True)
class NameLookup:
    """How well the name alone gives the class: the majority class in train of files with the same stem.

    A stem that train lacks counts as wrong. `majority_accuracy` is that of always answering train's largest class.
    """

    n_files: int
    n_unknown_stems: int
    accuracy: float
    majority_accuracy: float


@dataclass(frozen=True, slots=True)
class CopiesByName:
    """Surplus copies outside train, by where train has a file of the same name: a lower bound for copies across splits.

    `n_same_label`: in train under the same label; `n_other_label_only`: in train, but only under other labels.
    """

    n_surplus: int
    n_same_label: int
    n_other_label_only: int
    n_same_label_per_label: dict[str, int]


@dataclass(frozen=True, slots=True)
class FileNames:
    """`n_in_several_labels` counts file names that stand under more than one label; the rest is by split."""

    n_in_several_labels: int
    lookup: dict[str, NameLookup]
    copies: dict[str, CopiesByName]


def file_names(catalogue: Catalogue) -> FileNames:
    """What the names of a catalogue's files give away."""
    rows = [row for row in catalogue.ok_rows if row.label]
    labels_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels_of[_name(row)].add(row.label)
    splits = sorted({row.split for row in rows} - {"train"}, key=SPLIT_ORDER.__getitem__)
    surplus = surplus_rows(catalogue)
    return FileNames(
        n_in_several_labels=sum(len(labels) > 1 for labels in labels_of.values()),
        lookup={split: _look_up(rows, split) for split in splits},
        copies={split: _copies(rows, [row for row in surplus if row.split == split]) for split in splits},
    )


def stem_of(name: str) -> str:
    """A file name without ending, trailing number and the dash before that, lower case: `A-cyst-12.jpg` -> `a-cyst`."""
    return _TRAILING_NUMBER.sub("", PurePosixPath(name).stem).lower()


def _look_up(rows: list[IndexRow], split: str) -> NameLookup:
    train = Counter(row.label for row in rows if row.split == "train")
    by_stem: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.split == "train":
            by_stem[stem_of(_name(row))][row.label] += 1
    asked = [row for row in rows if row.split == split]
    answers = [_most_common(by_stem.get(stem_of(_name(row)), Counter())) for row in asked]
    n_right = sum(answer == row.label for answer, row in zip(answers, asked, strict=True))
    largest = _most_common(train)
    return NameLookup(
        n_files=len(asked),
        n_unknown_stems=sum(answer is None for answer in answers),
        accuracy=round(n_right / len(asked), 4),
        majority_accuracy=round(sum(row.label == largest for row in asked) / len(asked), 4),
    )


def _copies(rows: list[IndexRow], surplus: list[IndexRow]) -> CopiesByName:
    train: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.split == "train":
            train[_name(row)].add(row.label)
    same = Counter(row.label for row in surplus if row.label in train.get(_name(row), ()))
    n_named_in_train = sum(_name(row) in train for row in surplus)
    return CopiesByName(
        n_surplus=len(surplus),
        n_same_label=same.total(),
        n_other_label_only=n_named_in_train - same.total(),
        n_same_label_per_label=dict(sorted(same.items())),
    )


def _name(row: IndexRow) -> str:
    return PurePosixPath(row.path).name


def _most_common(counts: Counter[str]) -> str | None:
    """The most frequent label, the first by name among equals."""
    return min(counts, key=lambda label: (-counts[label], label), default=None)
