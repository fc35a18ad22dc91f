"""Derived columns: groups of copies, a validation part, a split without copies, a subset with equal classes.

Everything here depends on the rows and the seed alone, never on the rows' order: rows are drawn by the hash of what
they are, so that adding photographs to a class moves few of the others. They stand in a scratch database, so that
memory does not grow with them; what moves as one, a group of copies or a row that stands alone, is a `unit` there.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from builders.audit.components import connected_components
from builders.schema import IndexRow
from builders.scratch import Scratch, scratch

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
    with scratch() as store:
        start_photographs(store)
        store.put("photograph", ((r.image_id, r.image_sha256, r.path, r.split, r.label, True) for r in rows), 6)
        put_groups(store, groups or {})
        counts = derive_into(store, seed, validation_fraction)
        derived = {image_id: as_derived(values) for image_id, *values in store.rows("SELECT * FROM derived")}
    return derived, counts


def start_photographs(store: Scratch) -> None:
    """Make the table of photographs; those that are `chosen` get derived columns."""
    store.do(
        "CREATE TABLE photograph (image_id TEXT PRIMARY KEY, image_sha256 TEXT, path TEXT, split TEXT, label TEXT,"
        " chosen INTEGER) WITHOUT ROWID"
    )


def put_groups(store: Scratch, groups: dict[str, str]) -> None:
    """Make the table of groups that are known already, by `image_id`; "" is none."""
    store.do("CREATE TABLE known_group (image_id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID")
    store.put("known_group", ((image_id, name) for image_id, name in groups.items() if name), 2)


def as_derived(values: Iterable[Any]) -> Derived:
    """What a row of the table `derived` says, its `image_id` left out."""
    group, official, clean, balanced = values
    return Derived(group, official, clean, bool(balanced))


def derive_into(store: Scratch, seed: int, validation_fraction: float) -> SplitCounts:
    """Make the table `derived` of the photographs that are chosen and their known groups, as `derive_splits` says."""
    for path, split in store.rows("SELECT path, split FROM photograph WHERE chosen"):
        if split not in _PRIORITY:
            raise ValueError(f"{path}: unknown split '{split}'")
    _gather_members(store)
    _carve_validation(store, seed, validation_fraction)
    reasons = _clean(store)
    n_balanced, n_per_label = _balance(store, seed)
    return SplitCounts(
        n_rows=store.value("SELECT COUNT(*) FROM derived"),
        n_official=_count(store, "split_official"),
        n_clean=_count(store, "split_clean"),
        n_groups=store.value("SELECT COUNT(DISTINCT duplicate_group) FROM derived WHERE duplicate_group <> ''"),
        n_rows_in_groups=store.value("SELECT COUNT(*) FROM derived WHERE duplicate_group <> ''"),
        n_excluded_conflict=reasons["conflict"],
        n_excluded_across_splits=reasons["across_splits"],
        n_excluded_surplus=reasons["surplus"],
        n_balanced=n_balanced,
        n_balanced_per_label=n_per_label,
    )


def _count(store: Scratch, column: str) -> dict[str, int]:
    return dict(store.rows(f"SELECT {column}, COUNT(*) FROM derived GROUP BY 1 ORDER BY 1"))  # noqa: S608 - ours


def _gather_members(store: Scratch) -> None:
    """Every photograph with its group and unit (the two kinds cannot collide: one has a prefix)."""
    store.do("CREATE TABLE grouped (image_id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID")
    store.put("grouped", _groups(store), 2)
    store.do(
        "CREATE TABLE member (unit TEXT, image_id TEXT, image_sha256 TEXT, split TEXT, label TEXT, name TEXT,"
        " PRIMARY KEY (unit, image_id)) WITHOUT ROWID"
    )
    store.do(
        "INSERT INTO member SELECT coalesce('group ' || name, image_id), image_id, image_sha256, split, label,"
        " coalesce(name, '') FROM photograph LEFT JOIN grouped USING (image_id) WHERE chosen"
    )


def _groups(store: Scratch) -> Iterator[tuple[str, str]]:
    """`image_id` and group of whatever has copies: known groups, joined where they share bytes.

    A row that came after the audit joins its copies. Copies of no known group are called by 16 hex digits of their
    sha256, and joined groups by the least of their names.
    """
    store.do("CREATE TABLE copied (image_sha256 TEXT PRIMARY KEY) WITHOUT ROWID")
    store.do(
        "INSERT INTO copied SELECT image_sha256 FROM photograph WHERE chosen AND image_sha256 <> ''"
        " GROUP BY 1 HAVING COUNT(*) > 1"
    )
    first_of: dict[str, int] = {}
    links: list[tuple[int, int]] = []
    ids: list[str] = []
    names: list[tuple[str | None, str]] = []
    for number, (image_id, name, copied) in enumerate(
        store.rows(
            "SELECT image_id, name, copied.image_sha256 FROM photograph LEFT JOIN known_group USING (image_id)"
            " LEFT JOIN copied USING (image_sha256) WHERE chosen"
            " AND (name IS NOT NULL OR copied.image_sha256 IS NOT NULL) ORDER BY image_id"
        )
    ):
        ids.append(image_id)
        names.append((name, (copied or "")[:16]))
        keys = ([f"group {name}"] if name else []) + ([copied] if copied else [])
        links += [(number, first_of.setdefault(key, number)) for key in keys]
    components = connected_components(len(ids), links)
    given: dict[int, str] = {}
    for (name, _), component in zip(names, components, strict=True):
        if name:
            given[component] = min(name, given.get(component, name))
    for image_id, (_, own), component in zip(ids, names, components, strict=True):
        yield image_id, given.get(component, own)


def _carve_validation(store: Scratch, seed: int, validation_fraction: float) -> None:
    """Make the table of units that move from train to validation: about a fraction of each label's train rows.

    None where the source has a validation part. Groups that the source cut or labelled in two ways stay where they
    are: they belong to no one stratum. Where nothing else of a label stays in the clean train split, one unit does.
    """
    store.do("CREATE TABLE moved (unit TEXT PRIMARY KEY) WITHOUT ROWID")
    if store.value("SELECT COUNT(*) FROM member WHERE split = 'validation'"):
        return
    n_train = dict(store.rows("SELECT label, COUNT(*) FROM member WHERE split = 'train' GROUP BY 1"))
    store.do("CREATE TABLE movable (label TEXT, draw TEXT, unit TEXT, n INTEGER)")
    units = store.rows(
        "SELECT min(label), unit, COUNT(*) FROM member GROUP BY unit"
        " HAVING min(split) = 'train' AND max(split) = 'train' AND min(label) = max(label)"
    )
    store.put("movable", ((label, draw(seed, "validation", unit), unit, n) for label, unit, n in units), 4)
    n_units = dict(store.rows("SELECT label, COUNT(*) FROM movable GROUP BY 1"))
    cut = store.column(  # their train rows stay, and are clean
        "SELECT DISTINCT label FROM (SELECT min(label) AS label FROM member GROUP BY unit"
        " HAVING min(split) < max(split) AND min(label) = max(label))"
    )
    n_most = dict(store.rows("SELECT label, SUM(n) - MIN(n) FROM movable GROUP BY 1"))
    n_most |= dict.fromkeys(cut, sum(n_train.values()))
    drawn = store.rows("SELECT label, unit, n FROM movable ORDER BY label, draw")
    store.put("moved", _moved(drawn, n_train, n_units, n_most, validation_fraction), 1)


def _moved(
    units: Iterator[tuple[Any, ...]],
    n_train: dict[str, int],
    n_units: dict[str, int],
    n_most: dict[str, int],
    validation_fraction: float,
) -> Iterator[tuple[str]]:
    """Of units with label and size, by label and in the order drawn, those that fit into what is wanted.

    At most `n_most` rows of a label are taken.
    """
    for label, of_label in groupby(units, key=itemgetter(0)):
        n_wanted = round(n_train[label] * validation_fraction)
        if n_wanted == 0 and validation_fraction > 0 and n_units[label] > 1:
            n_wanted = 1  # a small class is still seen in validation, as long as one stays to train on
        n_wanted = min(n_wanted, n_most[label])
        for _, unit, n_rows in of_label:
            if n_rows <= n_wanted:
                n_wanted -= n_rows
                yield (unit,)


def _clean(store: Scratch) -> Counter[str]:
    """Make the table `derived`, in no balanced subset yet; how many rows were excluded for which reason."""
    store.do(
        "CREATE TABLE derived (image_id TEXT PRIMARY KEY, duplicate_group TEXT, split_official TEXT, split_clean TEXT,"
        " in_balanced_subset INTEGER) WITHOUT ROWID"
    )
    reasons: Counter[str] = Counter()
    members = store.rows(
        "SELECT unit, image_id, image_sha256, CASE WHEN moved.unit IS NULL THEN split ELSE 'validation' END, label,"
        " name FROM member LEFT JOIN moved USING (unit) ORDER BY unit, image_id"
    )

    def derived() -> Iterator[tuple[str, str, str, str, bool]]:
        for _, rows in groupby(members, key=itemgetter(0)):
            unit = list(rows)
            home = min((row[3] for row in unit), key=_PRIORITY.__getitem__)
            for (_, image_id, _, official, _, name), reason in zip(unit, _why_excluded(unit, home), strict=True):
                if reason:
                    reasons[reason] += 1
                yield image_id, name, official, "excluded" if reason else home, False

    store.put("derived", derived(), 5)
    return reasons


def _why_excluded(unit: list[tuple[Any, ...]], home: str) -> list[str]:
    """The reason of each row of a unit that is kept by the split `home`; "" for the rows that stay."""
    if len(unit) == 1:
        return [""]
    conflicting = len({label for *_, label, _ in unit}) > 1
    seen: set[str] = set()
    reasons: list[str] = []
    for _, _, sha256, official, _, _ in unit:
        reason = ""
        if conflicting:
            reason = "conflict"
        elif official != home:
            reason = "across_splits"
        elif sha256 and sha256 in seen:
            reason = "surplus"
        if not reason:
            seen.add(sha256)
        reasons.append(reason)
    return reasons


def _balance(store: Scratch, seed: int) -> tuple[int, int]:
    """Mark an equal number of rows per label, and count them, together and per label; none without a label."""
    store.do("CREATE TABLE train_row (label TEXT, draw TEXT, image_id TEXT)")
    train = store.rows(
        "SELECT label, image_id FROM derived JOIN photograph USING (image_id)"
        " WHERE split_clean = 'train' AND label <> ''"
    )
    store.put("train_row", ((label, draw(seed, "balanced", image_id), image_id) for label, image_id in train), 3)
    sizes = store.column("SELECT COUNT(*) FROM train_row GROUP BY label")
    n_per_label = min(sizes, default=0)
    store.do(
        "UPDATE derived SET in_balanced_subset = 1 WHERE image_id IN (SELECT image_id FROM"
        " (SELECT image_id, row_number() OVER (PARTITION BY label ORDER BY draw) AS place FROM train_row)"
        " WHERE place <= ?)",
        n_per_label,
    )
    return n_per_label * len(sizes), n_per_label


def draw(seed: int, purpose: str, key: str) -> str:
    """A random-looking sort key that depends on nothing but its arguments."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode()).hexdigest()
