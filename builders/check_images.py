"""Refuse photographs that are no longer what was described: `build` reads each again, or looks whether it is there."""

from itertools import tee
from pathlib import Path

from builders.errors import UserError
from builders.join_images import describe_unmatched, hash_images
from builders.schema import image_id_of
from builders.scratch import Scratch
from builders.sources import open_source


def check_images(store: Scratch, images: Path, embedded: list[int]) -> int:
    """Raise `UserError` unless every chosen photograph is still there, byte for byte; count files nobody indexed.

    Of those that the runs numbered `embedded` described only the presence is looked at: they are hashed when they are
    put into the dataset.
    """
    store.do("CREATE TABLE present (image_id TEXT PRIMARY KEY) WITHOUT ROWID")
    with open_source(images) as source:
        store.put("present", ((image_id_of(path),) for path in source.paths()), 1)
    store.do("CREATE TABLE embedded (image_id TEXT PRIMARY KEY) WITHOUT ROWID")
    for run in embedded:
        store.do(
            "INSERT INTO embedded SELECT image_id FROM file JOIN counted USING (image_id, run) WHERE run = ?"
            " AND file.status = 'ok' AND counted.status = 'ok'",
            run,
        )
    missing: list[str] = store.column(
        "SELECT path FROM photograph JOIN embedded USING (image_id) WHERE chosen"
        " AND image_id NOT IN (SELECT image_id FROM present)"
    )
    changed: list[str] = []
    rows, again = tee(
        store.rows(
            "SELECT path, image_sha256 FROM photograph WHERE chosen AND image_id NOT IN (SELECT image_id FROM embedded)"
            " ORDER BY path"
        )
    )
    for (path, digest), (_, expected) in zip(hash_images(images, (path for path, _ in rows)), again, strict=True):
        if digest is None:
            missing.append(path)
        elif digest != expected:
            changed.append(path)
    refuse_unmatched(
        images, store.value("SELECT COUNT(*) FROM photograph WHERE chosen"), sorted(missing), sorted(changed)
    )
    return int(store.value("SELECT COUNT(*) FROM present WHERE image_id NOT IN (SELECT image_id FROM photograph)"))


def refuse_unmatched(images: Path, n_rows: int, missing: list[str], changed: list[str]) -> None:
    """Raise `UserError` where photographs are missing, or have other bytes."""
    if missing or changed:
        raise UserError(
            describe_unmatched(images, n_rows, missing, changed),
            "point to the photographs that were annotated; where they were changed on purpose, annotate them again:"
            " the same command describes only those",
        )
