"""Derived columns: groups of copies, a validation part, a split without copies, a subset with equal classes.

Everything here depends on the rows and the seed alone, never on the rows' order: rows are drawn by the hash of what
they are, so that adding photographs to a class moves few of the others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from builders.audit.components import connected_components
from builders.schema import IndexRow

SplitOfficial = Literal["train", "validation", "test"]
SplitClean = Literal["train", "validation", "test", "excluded"]
_PRIORITY = {"train": 0, "validation": 1, "test": 2}  # the split that keeps a photograph when several hold it


@dataclass(frozen=True, slots=True)
class Derived:
    """The derived columns of one row.

    `duplicate_group` is the first 16 hex digits of the smallest sha256 among a photograph's copies, near-copies
    included where an audit found them; "" if it has none.
    `split_official` is the source's split, with a validation part taken out of `train` where the source has none.
    `split_clean` is that without contradictions and copies: each photograph once, and in one split only.
    `in_balanced_subset` marks as many rows of `split_clean == "train"` in every class as the smallest class has.
    """

    duplicate_group: str
    split_official: SplitOfficial
    split_clean: SplitClean
    in_balanced_subset: bool


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What `derive_splits` did, in rows; the three `n_excluded_*` add up to `split_clean`'s `excluded`.

    A row is excluded for the first reason that fits: its group has contradicting labels; its group stands in an
    earlier split too (train before validation before test); its bytes stand earlier in the same split.
    """

    n_rows: int
    n_official: dict[str, int]
    n_clean: dict[str, int]
    n_groups: int
    n_rows_in_groups: int
    n_excluded_conflict: int
    n_excluded_across_splits: int
    n_excluded_surplus: int
    n_balanced: int
    n_balanced_per_label: int


def byte_groups(rows: Iterable[IndexRow]) -> dict[str, str]:
    """`image_id` -> group of copies: 16 hex digits of the shared sha256, "" for a photograph that stands alone."""
    rows = list(rows)
    n_copies = Counter(row.image_sha256 for row in rows if row.image_sha256)
    return {row.image_id: row.image_sha256[:16] if n_copies[row.image_sha256] > 1 else "" for row in rows}


def derive_splits(
    rows: Iterable[IndexRow],
    *,
    seed: int = 0,
    validation_fraction: float = 0.1,
    groups: dict[str, str] | None = None,
) -> tuple[dict[str, Derived], SplitCounts]:
    """The derived columns by `image_id`, and their counts.

    `groups` maps `image_id` -> group, "" or absent for none, as `builders.audit.groups.read_groups` gives; byte copies
    are in one group in any case.
    A group within `train` is never cut by the validation part. What the source itself put on both sides stays so in
    `split_official` and is excluded from the later side in `split_clean`.
    """
    rows = sorted(rows, key=lambda row: row.image_id)
    groups = byte_groups(rows) if groups is None else _with_byte_copies(rows, groups)
    members: dict[str, list[IndexRow]] = defaultdict(list)
    for row in rows:
        members[_unit(row, groups)].append(row)
    official = _official(rows, members, seed, validation_fraction)
    clean, reasons = _clean(members, official)
    balanced, n_per_label = _balanced([row for row in rows if clean[row.image_id] == "train"], seed)
    derived = {
        row.image_id: Derived(
            duplicate_group=groups[row.image_id],
            split_official=official[row.image_id],
            split_clean=clean[row.image_id],
            in_balanced_subset=row.image_id in balanced,
        )
        for row in rows
    }
    return derived, SplitCounts(
        n_rows=len(rows),
        n_official=dict(sorted(Counter(official.values()).items())),
        n_clean=dict(sorted(Counter(clean.values()).items())),
        n_groups=len({group for group in groups.values() if group}),
        n_rows_in_groups=sum(1 for row in rows if groups[row.image_id]),
        n_excluded_conflict=reasons["conflict"],
        n_excluded_across_splits=reasons["across_splits"],
        n_excluded_surplus=reasons["surplus"],
        n_balanced=len(balanced),
        n_balanced_per_label=n_per_label,
    )


def _with_byte_copies(rows: list[IndexRow], groups: dict[str, str]) -> dict[str, str]:
    """`groups` for every row, joined where they share bytes: a row that came after the audit joins its copies."""
    first_of: dict[str, int] = {}
    links: list[tuple[int, int]] = []
    for number, row in enumerate(rows):
        group = groups.get(row.image_id)
        keys = [f"group {group}"] if group else []
        keys += [row.image_sha256] if row.image_sha256 else []
        links += [(number, first_of.setdefault(key, number)) for key in keys]
    given: dict[int, set[str]] = defaultdict(set)
    components = connected_components(len(rows), links)
    for row, component in zip(rows, components, strict=True):
        given[component] |= {groups[row.image_id]} if groups.get(row.image_id) else set()
    own = byte_groups(rows)
    return {
        row.image_id: min(given[component], default=own[row.image_id])
        for row, component in zip(rows, components, strict=True)
    }


def _unit(row: IndexRow, groups: dict[str, str]) -> str:
    """What moves as one: a group, or a row that stands alone (the two cannot collide: one has a prefix)."""
    return f"group {groups[row.image_id]}" if groups[row.image_id] else row.image_id


def _official(
    rows: list[IndexRow], members: dict[str, list[IndexRow]], seed: int, validation_fraction: float
) -> dict[str, SplitOfficial]:
    """The source's split, with about `validation_fraction` of each label's train rows moved where it has none.

    Groups that the source cut or labelled in two ways stay where they are: they belong to no one stratum.
    """
    official: dict[str, SplitOfficial] = {row.image_id: _source_split(row) for row in rows}
    if "validation" in official.values():
        return official
    by_label: dict[str, list[str]] = defaultdict(list)
    for unit, group in members.items():
        if {row.split for row in group} == {"train"} and len({row.label for row in group}) == 1:
            by_label[group[0].label].append(unit)
    n_train = Counter(row.label for row in rows if row.split == "train")
    for label, units in by_label.items():
        n_wanted = round(n_train[label] * validation_fraction)
        if n_wanted == 0 and validation_fraction > 0 and len(units) > 1:
            n_wanted = 1  # a small class is still seen in validation, as long as one stays to train on
        for unit in sorted(units, key=lambda unit: draw(seed, "validation", unit)):
            if len(members[unit]) <= n_wanted:
                n_wanted -= len(members[unit])
                official |= {row.image_id: "validation" for row in members[unit]}
    return official


def _source_split(row: IndexRow) -> SplitOfficial:
    match row.split:
        case "train" | "validation" | "test":
            return row.split
        case _:
            raise ValueError(f"{row.path}: unknown split '{row.split}'")


def _clean(
    members: dict[str, list[IndexRow]], official: dict[str, SplitOfficial]
) -> tuple[dict[str, SplitClean], Counter[str]]:
    """`split_clean` by `image_id`, and how many rows were excluded for which reason."""
    clean: dict[str, SplitClean] = {}
    reasons: Counter[str] = Counter()
    for group in members.values():
        conflicting = len({row.label for row in group}) > 1
        home: SplitClean = min((official[row.image_id] for row in group), key=_PRIORITY.__getitem__)
        seen: set[str] = set()
        for row in group:  # sorted by image_id
            reason = ""
            if conflicting:
                reason = "conflict"
            elif official[row.image_id] != home:
                reason = "across_splits"
            elif row.image_sha256 and row.image_sha256 in seen:
                reason = "surplus"
            clean[row.image_id] = "excluded" if reason else home
            if reason:
                reasons[reason] += 1
            else:
                seen.add(row.image_sha256)
    return clean, reasons


def _balanced(train: list[IndexRow], seed: int) -> tuple[set[str], int]:
    """Ids of an equal number of rows per label, and that number; rows without a label are never drawn."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in train:
        if row.label:
            by_label[row.label].append(row.image_id)
    n_per_label = min((len(ids) for ids in by_label.values()), default=0)
    drawn = (sorted(ids, key=lambda each: draw(seed, "balanced", each))[:n_per_label] for ids in by_label.values())
    return {image_id for ids in drawn for image_id in ids}, n_per_label


def draw(seed: int, purpose: str, key: str) -> str:
    """A random-looking sort key that depends on nothing but its arguments."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode()).hexdigest()
