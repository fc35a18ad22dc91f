"""What a run folder holds already, without its texts: what is done, what failed, what may be asked again."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotate.asks import Ask
from builders.errors import UserError
from builders.files import read_table
from builders.run_folder import better, one_per_image, part_files, read_part
from builders.schema import Description, IndexRow

COLUMNS = ["image_id", "image_sha256", "status", "reason", "attempt", "retries", "flags", "described_at"]


@dataclass(frozen=True, slots=True)
class Seen:
    """The row of one image, all but its text; `Description` says what the fields mean."""

    image_id: str
    image_sha256: str
    status: str
    reason: str
    attempt: int
    retries: int
    flags: tuple[str, ...]
    described_at: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Which flags let an image be asked again, and how often at most."""

    flags: frozenset[str]
    n_retries: int

    def wants(self, flags: Iterable[str], retries: int) -> bool:
        """Whether an answer with these flags, after so many retries, is asked again."""
        return retries < self.n_retries and not self.flags.isdisjoint(flags)


def read_seen(run: Path) -> dict[str, Seen]:
    """The rows of a run folder's finished parts by `image_id`; of several for one image, the one that counts."""
    return one_per_image(_rows(run))


def _rows(run: Path) -> Iterator[Seen]:
    for part in part_files(run):
        try:
            columns = read_table(part, COLUMNS).to_pydict()
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot read the part {part}: {error}", f"rm '{part}' and run annotate again") from error
        for values in zip(*(columns[name] for name in COLUMNS), strict=True):
            fields: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
            fields["flags"] = tuple(fields["flags"])
            yield Seen(**fields)


def asks_of(groups: dict[str, list[IndexRow]], seen: dict[str, Seen], retry: Retry) -> dict[str, Ask]:
    """What to ask: images with a file that has no answer, failed ones too, and those that `retry` wants again."""
    asks: dict[str, Ask] = {}
    for key, rows in groups.items():
        known = [seen.get(row.image_id) for row in rows]
        answered = [row for row in known if row and _has_answer(row, key)]
        if len(answered) < len(rows):
            asks[key] = Ask(key, rows[0].path)
        elif retry.wants(answered[0].flags, answered[0].retries):
            asks[key] = Ask(key, rows[0].path, answered[0].retries + 1)
    return asks


def texts_of(run: Path, keys: set[str]) -> dict[str, Description]:
    """The whole rows of these images that were answered, by `image_sha256`; of several the one that counts."""
    if not keys:
        return {}
    best: dict[str, Description] = {}
    for part in part_files(run):
        for row in read_part(part):
            if row.status == "ok" and row.image_sha256 in keys:
                best[row.image_sha256] = better(row, best.get(row.image_sha256))
    return best


def inherited_rows(run: Path, groups: dict[str, list[IndexRow]], seen: dict[str, Seen]) -> list[Description]:
    """Rows for files without an answer whose bytes have one under another name: nothing is described twice.

    The text, its flags and its count of retries are the same; the other file need not be there any more. The answer may
    be an older one of the file itself, which it has again: its disk was away for one run, or it was changed and put
    back. Hence all rows of all parts are looked at, not only those that count.
    """
    lacking: dict[str, list[IndexRow]] = {}
    for key, rows in groups.items():
        without = [row for row in rows if not _has_answer(seen.get(row.image_id), key)]
        if without:
            lacking[key] = without
    texts = texts_of(run, lacking.keys() & _answered(run) if lacking else set())
    return [
        replace(text, image_id=row.image_id, attempt=1 + seen[row.image_id].attempt if row.image_id in seen else 1)
        for key, text in texts.items()
        for row in lacking[key]
    ]


def _answered(run: Path) -> set[str]:
    """The `image_sha256` of every image that has an answer in some part."""
    return {row.image_sha256 for row in _rows(run) if row.status == "ok"}


def _has_answer(row: Seen | None, key: str) -> bool:
    return row is not None and row.status == "ok" and row.image_sha256 == key
