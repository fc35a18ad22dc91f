"""A reviewer's marks of descriptions: read from a gallery's CSV, and fitted to the texts that they were made of."""

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError
from builders.join_images import some

VERDICTS = ("good", "wrong", "unsure")
CSV_COLUMNS = ("set_name", "image_id", "description_id", "review", "review_note", "reviewed_at")
_MAX_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Mark:
    """What a reviewer says of one description.

    `description_id` names the text that was judged, so that no other text is published as judged. `review` is one of
    `VERDICTS`, or empty beside a note. `reviewed_at` is UTC, ISO 8601, as the browser's clock had it.
    """

    description_id: str
    review: str
    review_note: str
    reviewed_at: str


Reviews = dict[str, dict[str, Mark]]  # set name -> image_id -> mark


def description_id(description: str) -> str:
    """The first 16 hex digits of the sha256 of a description's UTF-8 bytes."""
    return hashlib.sha256(description.encode()).hexdigest()[:16]


def read_review(path: Path) -> Reviews:
    """The marks in a CSV file of a gallery, or of several put together.

    Raises `UserError` where the file is not such a CSV, and where it marks one description in two ways.
    """
    reviews: Reviews = {}
    for number, row in _rows(path):
        mark = Mark(row["description_id"], row["review"], row["review_note"], row["reviewed_at"])
        if mark.review not in VERDICTS and (mark.review or not mark.review_note):
            raise UserError(
                f"{path}, row {number}: unknown mark '{mark.review}'; choose one of: {', '.join(sorted(VERDICTS))}"
            )
        marks = reviews.setdefault(row["set_name"], {})
        known = marks.setdefault(row["image_id"], mark)
        if (known.description_id, known.review, known.review_note) != (
            mark.description_id,
            mark.review,
            mark.review_note,
        ):
            raise UserError(
                f"{path} marks image {row['image_id']} of the set '{row['set_name']}' twice: "
                f"as '{known.review}' ({known.reviewed_at}) and as '{mark.review}' ({mark.reviewed_at})",
                "keep one of the two rows",
            )
    return reviews


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of the file with their numbers, the header being row 1."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} is too large for a review: {path.stat().st_size} bytes")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}", "export the marks from the gallery, and name that file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as a review: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if number == 1:
                _check_header(path, cells)
            elif len(cells) != len(CSV_COLUMNS):
                raise UserError(f"{path}, row {number}: it has {len(cells)} cells and not {len(CSV_COLUMNS)}")
            else:
                rows.append((number, dict(zip(CSV_COLUMNS, cells, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}") from error
    if not rows:
        raise UserError(f"{path} holds no mark")
    return rows


def _check_header(path: Path, cells: list[str]) -> None:
    if tuple(cells) != CSV_COLUMNS:
        raise UserError(
            f"{path} is not a review: its first row is '{','.join(cells)[:200]}' and not '{','.join(CSV_COLUMNS)}'",
            "export the marks from the gallery; a spreadsheet has to save them with commas",
        )


def marks_of(reviews: Reviews, set_name: str, texts: Mapping[str, str]) -> dict[str, Mark]:
    """The marks of one set, by `image_id`, fitted to `texts`, which maps `image_id` to its description.

    Raises `UserError` where a mark is of an image that the set lacks, or of another text than it has now.
    """
    marks = reviews.get(set_name, {})
    foreign = sorted(image_id for image_id in marks if image_id not in texts)
    if foreign:
        raise UserError(
            f"{len(foreign)} marks are of images that the set '{set_name}' does not hold: {some(foreign)}",
            "take the gallery of this dataset, or remove those rows",
        )
    stale = sorted(
        image_id for image_id, mark in marks.items() if mark.description_id != description_id(texts[image_id])
    )
    if stale:
        raise UserError(
            f"{len(stale)} marks are of texts that the set '{set_name}' no longer has: {some(stale)}",
            "review them again in a new gallery, or remove those rows",
        )
    return marks


def check_set_names(reviews: Reviews, set_names: list[str]) -> None:
    """Raise `UserError` where a review is of a set that is not among `set_names`."""
    foreign = sorted(set(reviews) - set(set_names))
    if foreign:
        raise UserError(
            f"the review is of the sets {', '.join(foreign)}, and the dataset has {', '.join(set_names)}",
            "build from the runs that were reviewed, or remove those rows",
        )
