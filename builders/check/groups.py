"""Rules between rows: each photograph once, copies in one group, no group in two splits, all sets alike."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from builders.check.fault import Fault
from builders.check.row_rules import CLEAN
from builders.check.rows import Tally

Positions = npt.NDArray[np.intp]
_EXCLUDED, _TRAIN = CLEAN.index("excluded"), CLEAN.index("train")
MAX_NAMED = 5  # rows of one group that are named


def check_groups(set_name: str, tally: Tally) -> Iterator[Fault]:
    """The rules that hold among the rows of one set."""
    columns = _Columns(tally)
    for rows in _groups_of(columns.ids):
        yield Fault("groups", set_name, columns.name(rows[:1]), f"{len(rows)} rows", "one row per image_id")
    for rows in _groups_of(columns.digests):
        yield from _check_copies(set_name, columns, rows)
    grouped = np.flatnonzero(columns.groups)
    for rows in _groups_of(columns.groups[grouped]):
        yield from _check_group(set_name, columns, grouped[rows])


class _Columns:
    """The arrays of a tally as numpy sees them, without a copy."""

    def __init__(self, tally: Tally) -> None:
        self.ids = np.asarray(tally.ids, dtype=np.uint64)
        self.digests = np.asarray(tally.digests, dtype=np.uint64)
        self.groups = np.asarray(tally.groups, dtype=np.uint64)
        self.labels = np.asarray(tally.labels, dtype=np.int64)
        self.splits = np.asarray(tally.splits, dtype=np.int8)
        self.official = np.asarray(tally.official, dtype=np.int8)
        self.clean = np.asarray(tally.clean, dtype=np.int8)

    def name(self, rows: Positions) -> str:
        """The rows for a fault's `place`: the first few ids."""
        named = " ".join(f"{int(each):016x}" for each in sorted(self.ids[rows[:MAX_NAMED]]))
        more = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
        return f"{'row' if len(rows) == 1 else 'rows'} {named}{more}"


def _groups_of(keys: npt.NDArray[np.uint64]) -> Iterator[Positions]:
    """The positions of each key that stands more than once, in the order of the keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.array([], dtype=np.intp)
    sizes = np.diff(np.r_[starts, len(keys)])
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        yield order[start : start + size]


def _check_copies(set_name: str, columns: _Columns, rows: Positions) -> Iterator[Fault]:
    """Rows of the same bytes share a group, and stand once at most in a clean split."""
    if len(set(columns.groups[rows].tolist())) > 1 or not columns.groups[rows].all():
        allowed = "one duplicate_group for all rows of the same image_sha256"
        yield Fault("groups", set_name, columns.name(rows), "several, or none", allowed)
    n_kept = int(np.count_nonzero(columns.clean[rows] != _EXCLUDED))
    if n_kept > 1:
        allowed = "split_clean keeps one of the rows with the same image_sha256"
        yield Fault("groups", set_name, columns.name(rows), f"{n_kept} kept", allowed)


def _check_group(set_name: str, columns: _Columns, rows: Positions) -> Iterator[Fault]:
    """A group with several labels is excluded whole; no other stands in two clean splits, nor is train cut in it."""
    clean = sorted({CLEAN[each] for each in columns.clean[rows].tolist() if each != _EXCLUDED})
    if len(set(columns.labels[rows].tolist())) > 1:
        if clean:
            allowed = "excluded, because the copies carry different labels"
            yield Fault("groups", set_name, columns.name(rows), f"split_clean {', '.join(clean)}", allowed)
    elif len(clean) > 1:
        allowed = "one clean split for a group of copies"
        yield Fault("groups", set_name, columns.name(rows), f"split_clean {', '.join(clean)}", allowed)
    of_train = rows[columns.splits[rows] == _TRAIN]
    official = sorted({CLEAN[each] for each in columns.official[of_train].tolist()})
    if len(official) > 1:
        allowed = "one split_official for the copies within train"
        yield Fault("groups", set_name, columns.name(of_train), f"split_official {', '.join(official)}", allowed)


def check_alike(set_name: str, tally: Tally, other_name: str, other: Tally) -> Iterator[Fault]:
    """Two sets say the same of the photographs that both hold: bytes, path, class, splits."""
    ids, others = (np.asarray(each.ids, dtype=np.uint64) for each in (tally, other))
    facts, other_facts = (np.asarray(each.facts, dtype=np.uint64) for each in (tally, other))
    both, here, there = np.intersect1d(ids, others, return_indices=True)
    for image_id in both[facts[here] != other_facts[there]].tolist():
        allowed = f"image_sha256, path, label, duplicate_group and splits as in {other_name}"
        yield Fault("groups", set_name, f"row {image_id:016x}", "others", allowed)
