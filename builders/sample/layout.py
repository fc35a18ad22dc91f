"""Sample photographs on disk as DermNet ships them, flaws included, with the truth about each beside them."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError
from builders.files import write_atomic
from builders.sample.attributes import ATTRIBUTE_NAMES, MORPHOLOGIES
from builders.sample.photograph import Photograph, render_photograph
from builders.workers import WorkerDiedError, ordered_map

ATTRIBUTES_FILE = "attributes.csv"
_COLUMNS: tuple[str, ...] = ("path", "split", "label", "morphology", "n_lesions", "orientation", *ATTRIBUTE_NAMES)


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What was written.

    `n_images` photographs, each a file of its own; `n_duplicates` more files repeat one in the other split and
    `n_conflicts` repeat one under another class, byte for byte; `n_broken` files are no readable image;
    `n_rotated` of the photographs are stored turned, with an EXIF tag.
    """

    out: str
    n_images: int
    n_train: int
    n_test: int
    n_classes: int
    n_rotated: int
    n_duplicates: int
    n_conflicts: int
    n_broken: int


def write_sample(out: Path, n_images: int, seed: int, *, broken: bool = False) -> SampleSummary:
    """Write `n_images` photographs and two copies to OUT/train and OUT/test, and `attributes.csv` beside them.

    With `broken`, files that cannot be decoded as well. Photograph i depends on (seed, i) alone, so a larger sample
    holds the smaller one. `UserError` if OUT holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and is not an empty folder", f"rm -r '{out}'   or another OUT")
    rows: list[dict[str, str]] = []
    for number, photograph in _render_all(seed, n_images):
        path = _path_of(number, photograph.attributes.morphology)
        _write(out / path, photograph.jpeg)
        rows.append(_row(path, photograph))
        if number < 2:  # the first into the other split, the second under another class
            copy = _copy_of(path) if number == 0 else _conflict_of(path)
            _write(out / copy, photograph.jpeg)
            rows.append(_row(copy, photograph))
    broken_files = _broken_files((out / rows[0]["path"]).read_bytes()) if broken and rows else {}
    for path, content in broken_files.items():
        _write(out / path, content)
    write_atomic(out / ATTRIBUTES_FILE, lambda part: _write_rows(part, rows))
    return SampleSummary(
        out=str(out),
        n_images=n_images,
        n_train=sum(row["split"] == "train" for row in rows),
        n_test=sum(row["split"] == "test" for row in rows),
        n_classes=len({row["label"] for row in rows}),
        n_rotated=sum(row["orientation"] != "1" for row in rows),
        n_duplicates=min(1, n_images),
        n_conflicts=min(1, max(0, n_images - 1)),
        n_broken=len(broken_files),
    )


def _render_all(seed: int, n_images: int) -> Iterator[tuple[int, Photograph]]:
    numbers = [(seed, number) for number in range(n_images)]
    n_workers = 0 if n_images < 100 else min(8, os.cpu_count() or 1)  # a process takes a second to start
    for number, photograph in enumerate(ordered_map(_render, numbers, n_workers, ahead=4 * n_workers)):
        if isinstance(photograph, WorkerDiedError):
            raise photograph
        yield number, photograph


def _render(which: tuple[int, int]) -> Photograph:
    return render_photograph(*which)


def _path_of(number: int, morphology: str) -> str:
    """`train/papule/papule-12.jpg`: named and numbered as DermNet does; one in five of each class is for the test."""
    place = number // len(MORPHOLOGIES)
    return f"{'test' if place % 5 == 1 else 'train'}/{morphology}/{morphology}-{place + 1}.jpg"


def _copy_of(path: str) -> str:
    """The same name in the other split."""
    split, _, rest = path.partition("/")
    return f"{'train' if split == 'test' else 'test'}/{rest}"


def _conflict_of(path: str) -> str:
    """The same name under the next class."""
    split, label, name = path.split("/")
    names = list(MORPHOLOGIES)
    return f"{split}/{names[(names.index(label) + 1) % len(names)]}/{name}"


def _broken_files(jpeg: bytes) -> dict[str, bytes]:
    """Files that end in .jpg and cannot be decoded, by path."""
    return {
        "train/macule/macule-9001.jpg": b"",
        "train/patch/patch-9002.jpg": jpeg[: len(jpeg) // 2],
        "train/papule/papule-9003.jpg": b"This is a text file with the wrong name.\n",
        "test/plaque/plaque-9004.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
        "test/wheal/wheal-9005.jpg": jpeg[:20] + bytes(len(jpeg) - 20),
    }


def _row(path: str, photograph: Photograph) -> dict[str, str]:
    split, label, _ = path.split("/")
    truth = photograph.attributes
    return {
        "path": path,
        "split": split,
        "label": label,
        "morphology": truth.morphology,
        "n_lesions": str(photograph.n_lesions),
        "orientation": str(photograph.orientation),
        **{name: getattr(truth, name) for name in ATTRIBUTE_NAMES},
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
