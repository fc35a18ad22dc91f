"""What the files are: unreadable, tiny or blank ones, and how many each class has."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from builders.audit.catalogue import SPLIT_ORDER, Catalogue
from builders.audit.config import TINY_BYTES, TINY_SIDE_PX

Listing = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Contents:
    """Files by what is wrong with them: `refused` could not be decoded, `tiny` have a side or a size below a limit.

    `tiny` is None where sizes are not known. Each entry has `path` and `reason`.
    """

    n_files: int
    n_ok: int
    n_refused: int
    n_tiny: int | None
    refused: Listing
    tiny: Listing | None


@dataclass(frozen=True, slots=True)
class Balance:
    """The classes of one split: the smallest, the largest, how many times larger it is, and all counts."""

    n_labels: int
    n_files: int
    smallest: int
    largest: int
    ratio: float
    n_per_label: dict[str, int]


def contents(catalogue: Catalogue) -> Contents:
    """What a catalogue's files are, as far as it tells."""
    refused = [{"path": row.path, "reason": row.reason} for row in catalogue.rows if row.status == "refused"]
    tiny: Listing | None = None
    if not catalogue.is_bare:
        tiny = [
            {"path": row.path, "reason": f"{row.width_px} × {row.height_px} px, {row.n_bytes:,} bytes"}
            for row in catalogue.ok_rows
            if min(row.width_px, row.height_px) < TINY_SIDE_PX or row.n_bytes < TINY_BYTES
        ]
    return Contents(
        n_files=len(catalogue.rows),
        n_ok=len(catalogue.ok_rows),
        n_refused=len(refused),
        n_tiny=None if tiny is None else len(tiny),
        refused=refused,
        tiny=tiny,
    )


def balance(catalogue: Catalogue) -> dict[str, Balance]:
    """How many usable files each class has, by split."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in catalogue.ok_rows:
        if row.label:
            counts[row.split][row.label] += 1
    return {
        split: Balance(
            n_labels=len(per_label),
            n_files=per_label.total(),
            smallest=min(per_label.values()),
            largest=max(per_label.values()),
            ratio=round(max(per_label.values()) / min(per_label.values()), 2),
            n_per_label=dict(sorted(per_label.items())),
        )
        for split, per_label in sorted(counts.items(), key=lambda each: SPLIT_ORDER[each[0]])
    }
