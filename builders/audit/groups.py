"""Groups of the same photograph: links of every kind, the groups they make, and the table that `build` reads."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from builders.audit.components import connected_components
from builders.audit.copies import groups_of_copies
from builders.audit.near_copies import NearCopy
from builders.audit.neighbours import CloseFeatures
from builders.errors import UserError
from builders.files import write_table
from builders.schema import IndexRow

GROUPS_FILE = "groups.parquet"
LINKS_FILE = "links.parquet"
Kind = Literal["byte_copy", "near_copy", "close_features"]
KINDS: tuple[Kind, ...] = ("byte_copy", "near_copy", "close_features")  # the strongest evidence first


@dataclass(frozen=True, slots=True)
class Link:
    """Two files that show the same, by `image_id`, and how that was found.

    `score` is 1 for byte copies, the thumbnails' correlation for near-copies, and for close features the distance as
    a share of that to the tenth neighbour. `symmetry` says how the first was turned to look like the second.
    """

    first: str
    second: str
    kind: Kind
    score: float
    symmetry: str


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a group of two or more; `kind` is the strongest evidence that ties it to another of the group.

    `group` is the first 16 hex digits of the smallest sha256 in it, or its smallest `image_id` where none is known.
    """

    image_id: str
    path: str
    group: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """Groups counted: all, and those that stand in several splits or under several labels; links by kind.

    `n_test_beside_train` counts files outside train whose group has a file in train. `conflicts` lists the paths of
    every group under several labels.
    """

    n_groups: int
    n_files: int
    largest: int
    n_across_splits: int
    n_conflicts: int
    n_test_beside_train: int
    n_links: dict[str, int]
    n_links_across_splits: dict[str, int]
    n_links_across_labels: dict[str, int]
    conflicts: list[list[str]]


def byte_links(rows: list[IndexRow]) -> list[Link]:
    """Each byte copy with its original."""
    return [
        Link(group[0].image_id, copy.image_id, "byte_copy", 1.0, "upright")
        for group in groups_of_copies(rows)
        for copy in group[1:]
    ]


def picture_links(rows: list[IndexRow], pairs: list[NearCopy]) -> list[Link]:
    """Links of near-copies; their numbers count `rows`."""
    return [
        Link(rows[pair.first].image_id, rows[pair.second].image_id, "near_copy", pair.correlation, pair.symmetry)
        for pair in pairs
    ]


def feature_links(rows: list[IndexRow], pairs: list[CloseFeatures]) -> list[Link]:
    """Links of rows with close features; their numbers count `rows`."""
    return [
        Link(rows[pair.first].image_id, rows[pair.second].image_id, "close_features", pair.ratio, "") for pair in pairs
    ]


def make_groups(rows: list[IndexRow], links: list[Link]) -> list[Member]:
    """The connected components of `links` with two or more files, sorted by group and path."""
    number_of = {row.image_id: number for number, row in enumerate(rows)}
    kind_of: dict[str, Kind] = {}
    for link in sorted(links, key=lambda link: KINDS.index(link.kind), reverse=True):
        kind_of |= {link.first: link.kind, link.second: link.kind}
    pairs = ((number_of[link.first], number_of[link.second]) for link in links)
    components: dict[int, list[IndexRow]] = defaultdict(list)
    for row, component in zip(rows, connected_components(len(rows), pairs), strict=True):
        if row.image_id in kind_of:
            components[component].append(row)
    members: list[Member] = []
    for group in components.values():
        name = min((row.image_sha256[:16] for row in group if row.image_sha256), default="")
        name = name or min(row.image_id for row in group)
        members += [Member(row.image_id, row.path, name, kind_of[row.image_id]) for row in group]
    return sorted(members, key=lambda member: (member.group, member.path))


def count_groups(rows: list[IndexRow], members: list[Member], links: list[Link]) -> GroupFacts:
    """Count groups and links."""
    row_of = {row.image_id: row for row in rows}
    groups: dict[str, list[IndexRow]] = defaultdict(list)
    for member in members:
        groups[member.group].append(row_of[member.image_id])
    splits = {name: {row.split for row in group} for name, group in groups.items()}
    conflicts = [[row.path for row in group] for group in groups.values() if len({row.label for row in group}) > 1]
    pairs = [(link.kind, row_of[link.first], row_of[link.second]) for link in links]
    return GroupFacts(
        n_groups=len(groups),
        n_files=len(members),
        largest=max((len(group) for group in groups.values()), default=0),
        n_across_splits=sum(len(found) > 1 for found in splits.values()),
        n_conflicts=len(conflicts),
        n_test_beside_train=sum(
            row.split != "train" for name, group in groups.items() if "train" in splits[name] for row in group
        ),
        n_links=_per_kind(kind for kind, _, _ in pairs),
        n_links_across_splits=_per_kind(kind for kind, first, second in pairs if first.split != second.split),
        n_links_across_labels=_per_kind(kind for kind, first, second in pairs if first.label != second.label),
        conflicts=conflicts,
    )


def _per_kind(kinds: Any) -> dict[str, int]:
    found = list(kinds)
    return {kind: found.count(kind) for kind in KINDS}


def write_groups(folder: Path, members: list[Member], links: list[Link]) -> None:
    """Write the table of groups, and that of the links that made them."""
    names = ("image_id", "path", "group", "kind")
    text = pa.schema([pa.field(name, pa.string(), nullable=False) for name in names])
    write_table(folder / GROUPS_FILE, pa.Table.from_pylist([asdict(member) for member in members], schema=text))
    schema = pa.schema(
        [
            pa.field(name, pa.float64() if name == "score" else pa.string(), nullable=False)
            for name in ("first", "second", "kind", "score", "symmetry")
        ]
    )
    write_table(folder / LINKS_FILE, pa.Table.from_pylist([asdict(link) for link in links], schema=schema))


def read_groups(audit: Path) -> dict[str, str]:
    """`image_id` -> group of every file that an audit found to have copies or near-copies; the others are not in it.

    Raises `UserError` where `audit` is not an audit's folder.
    """
    file = audit / GROUPS_FILE
    try:
        table = pq.read_table(file, columns=["image_id", "group"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(
            f"cannot read the groups of an audit from {file}: {error}", "vl-dermnet audit IMAGES --out AUDIT"
        ) from error
    return dict(zip(table["image_id"].to_pylist(), table["group"].to_pylist(), strict=True))
