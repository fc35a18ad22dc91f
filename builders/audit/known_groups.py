"""Groups of copies beside groups that somebody knows: photographs of one lesion, one patient, one session."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from builders.audit.groups import KINDS, Link, Member
from builders.audit.records import read_records
from builders.errors import UserError
from builders.join_images import some
from builders.schema import IndexRow

_PATH_COLUMNS = ("path", "file_name")


@dataclass(frozen=True, slots=True)
class KnownGroups:
    """How the groups that were found agree with the known ones of `column`, in pairs of files.

    `n_pairs` are within one group that was found, `n_pairs_known` within one known group, and `n_pairs_agreed` within
    both: precision is the share of the first that agrees, recall that of the second, None where there are none. The
    known groups count only files under audit; `n_without` of these have none. `n_links` and `n_links_agreed` count the
    links by kind.
    """

    column: str
    n_files: int
    n_without: int
    n_groups: int
    n_groups_across_splits: int
    n_pairs: int
    n_pairs_known: int
    n_pairs_agreed: int
    precision: float | None
    recall: float | None
    n_links: dict[str, int]
    n_links_agreed: dict[str, int]


def read_known(file: Path, column: str, rows: list[IndexRow]) -> dict[str, str]:
    """`image_id` -> known group of each file under audit, from a CSV or Parquet table of `path` (or `file_name`).

    Raises `UserError` where the table cannot be read, lacks the column, or names none of the files.
    """
    records = read_records(file, (*_PATH_COLUMNS, column))
    names = list(records[0]) if records else []
    path_column = next((name for name in _PATH_COLUMNS if name in names), None)
    if path_column is None or column not in names:
        raise UserError(
            f"{file} needs a column path (or file_name) and a column {column}; its columns are {', '.join(names)}",
            "--known-column NAME, one of its columns",
        )
    group_of = {record[path_column]: record[column] for record in records if record[column]}
    known = {row.image_id: group_of[row.path] for row in rows if row.path in group_of}
    if not known:
        raise UserError(
            f"{file} names none of the {len(rows):,} files under audit; it names {some(sorted(group_of))}",
            "the paths must be as in the index, like train/papule/a.jpg",
        )
    return known


def compare_groups(
    column: str, known: dict[str, str], rows: list[IndexRow], members: list[Member], links: list[Link]
) -> KnownGroups:
    """Count the pairs that are found, known, and both. Files without a known group are left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for member in members:
        if member.image_id in known:
            found[member.group].append(known[member.image_id])
    pairs = [first == second for group in found.values() for first, second in combinations(group, 2)]
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.image_id in known:
            splits[known[row.image_id]].add(row.split)
    n_pairs_known = sum(n * (n - 1) // 2 for n in Counter(known.values()).values())
    told = [link for link in links if link.first in known and link.second in known]
    return KnownGroups(
        column=column,
        n_files=len(known),
        n_without=len(rows) - len(known),
        n_groups=len(splits),
        n_groups_across_splits=sum(len(each) > 1 for each in splits.values()),
        n_pairs=len(pairs),
        n_pairs_known=n_pairs_known,
        n_pairs_agreed=sum(pairs),
        precision=_share(sum(pairs), len(pairs)),
        recall=_share(sum(pairs), n_pairs_known),
        n_links=_per_kind(told),
        n_links_agreed=_per_kind(link for link in told if known[link.first] == known[link.second]),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _per_kind(links: Iterable[Link]) -> dict[str, int]:
    counts = Counter(link.kind for link in links)
    return {kind: counts[kind] for kind in KINDS}
