"""Byte copies: the same file more than once, in several splits, under several labels."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from builders.audit.catalogue import SPLIT_ORDER, Catalogue, in_split_order
from builders.schema import IndexRow

FROM_BYTES = "the sha256 of every file"
FROM_LIST = (
    "a list of surplus copies: the files that they repeat are not named, so the figures about groups, splits and labels"
    " count only what the list itself shows"
)


@dataclass(frozen=True, slots=True)
class ByteCopies:
    """What the bytes alone say. Surplus is every copy after the first, in the order train, validation, test, path.

    `conflicts` lists the paths of every photograph that stands under more than one label; `basis` says what was known.
    """

    basis: str
    n_surplus: int
    n_surplus_per_split: dict[str, int]
    n_groups: int
    n_groups_across_splits: int
    n_conflicts: int
    conflicts: list[list[str]]


def groups_of_copies(rows: list[IndexRow]) -> list[list[IndexRow]]:
    """Rows that share their bytes, the original first; in the order of the originals."""
    by_bytes: dict[str, list[IndexRow]] = defaultdict(list)
    for row in sorted(rows, key=in_split_order):
        if row.image_sha256:
            by_bytes[row.image_sha256].append(row)
    return [group for group in by_bytes.values() if len(group) > 1]


def surplus_rows(catalogue: Catalogue) -> list[IndexRow]:
    """The rows that repeat an earlier file, in the order train, validation, test, path."""
    if catalogue.known_surplus is not None:
        surplus = [row for row in catalogue.ok_rows if row.image_id in catalogue.known_surplus]
    else:
        surplus = [row for group in groups_of_copies(catalogue.ok_rows) for row in group[1:]]
    return sorted(surplus, key=in_split_order)


def byte_copies(catalogue: Catalogue) -> ByteCopies:
    """Count the byte copies of a catalogue."""
    groups = groups_of_copies(catalogue.ok_rows)
    surplus = Counter(row.split for row in surplus_rows(catalogue))
    conflicts = [[row.path for row in group] for group in groups if len({row.label for row in group}) > 1]
    return ByteCopies(
        basis=FROM_BYTES if catalogue.has_all_checksums else FROM_LIST,
        n_surplus=surplus.total(),
        n_surplus_per_split={split: surplus[split] for split in SPLIT_ORDER if surplus[split]},
        n_groups=len(groups),
        n_groups_across_splits=sum(len({row.split for row in group}) > 1 for group in groups),
        n_conflicts=len(conflicts),
        conflicts=conflicts,
    )
