"""The worst pairs: those that make a test meaningless or a label wrong first, each kind having its share."""

import hashlib
from dataclasses import dataclass

from builders.audit.groups import KINDS, Link
from builders.schema import IndexRow

PAIRS_PER_KIND = 12


@dataclass(frozen=True, slots=True)
class WorstPair:
    """Two files that show the same, and the evidence."""

    link: Link
    first: IndexRow
    second: IndexRow

    @property
    def is_across_splits(self) -> bool:
        """Whether one was trained on and the other not."""
        return self.first.split != self.second.split

    @property
    def is_conflict(self) -> bool:
        """Whether the two have different labels."""
        return self.first.label != self.second.label


def worst_pairs(rows: list[IndexRow], links: list[Link]) -> list[WorstPair]:
    """At most `PAIRS_PER_KIND` pairs of each kind: contradictions first, then copies across splits, then the others.

    Among equals they are drawn by their ids, so that not all come from one class.
    """
    row_of = {row.image_id: row for row in rows}
    pairs: list[WorstPair] = []
    for kind in KINDS:
        found = [WorstPair(link, row_of[link.first], row_of[link.second]) for link in links if link.kind == kind]
        found.sort(key=lambda pair: (-pair.is_conflict, -pair.is_across_splits, _draw(pair.link)))
        pairs += found[:PAIRS_PER_KIND]
    return pairs


def _draw(link: Link) -> str:
    return hashlib.sha256(f"{link.first}{link.second}".encode()).hexdigest()
