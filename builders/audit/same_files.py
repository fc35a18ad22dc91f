"""Whether an audit is of the photographs that a dataset is built of, and derived its splits in the same way."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.errors import UserError
from builders.files import read_batches, read_json
from builders.join_images import some
from builders.scratch import Scratch

AUDIT_FILE = "audit.json"
SPLITS_FILE = "splits.parquet"
COMPARED = ("image_id", "image_sha256", "split", "label")
_AGAIN = "vl-dermnet audit IMAGES --out AUDIT"


def check_audit_is_of(audit: Path, store: Scratch, seed: int, validation_fraction: float) -> None:
    """Raise `UserError` unless the audit in the folder `audit` knows every chosen photograph as it is here.

    It may know more files: a dataset can be built of some. Its groups of near-copies would mean nothing for other
    photographs, and its figures on the card would be of another split with another seed or fraction.
    """
    file = audit / AUDIT_FILE
    told: Any = read_json(file) if file.is_file() else None
    settings = told.get("settings") if isinstance(told, dict) else None
    if not isinstance(settings, dict):
        raise UserError(f"{file} does not tell what was audited and how", _AGAIN)
    for name, option, here in (("seed", "--seed", seed), ("validation_fraction", "", validation_fraction)):
        there = settings.get(name)
        if there != here:
            raise UserError(
                f"{audit} derived its splits with {name} {there}, the dataset is built with {here}: the card would tell"
                " two different splits",
                f"{option} {there}" if option and there is not None else f"{_AGAIN} with {name} {here}",
            )
    store.do(
        "CREATE TABLE audited (image_id TEXT PRIMARY KEY, image_sha256 TEXT, split TEXT, label TEXT) WITHOUT ROWID"
    )
    try:
        store.put("audited", _known_files(audit), len(COMPARED))
    except sqlite3.IntegrityError as error:
        raise UserError(f"{audit / SPLITS_FILE} is damaged: it names a file twice", _AGAIN) from error
    strange = store.column(
        "SELECT path FROM photograph WHERE chosen AND image_id NOT IN (SELECT image_id FROM audited) ORDER BY path"
    )
    changed = store.column(
        "SELECT path FROM photograph JOIN audited USING (image_id) WHERE chosen"
        " AND (photograph.image_sha256, photograph.split, photograph.label)"
        " IS NOT (audited.image_sha256, audited.split, audited.label) ORDER BY path"
    )
    if strange or changed:
        n_photographs = store.value("SELECT COUNT(*) FROM photograph WHERE chosen")
        parts = [f"{len(strange):,} are not in it: {some(strange)}"] if strange else []
        parts += [f"{len(changed):,} have other bytes, another split or label: {some(changed)}"] if changed else []
        raise UserError(
            f"{audit} is not an audit of these {n_photographs:,} photographs; {'; '.join(parts)}",
            f"{_AGAIN}, of the photographs that were described",
        )


def _known_files(audit: Path) -> Iterator[tuple[Any, ...]]:
    """`image_id`, sha256, split and label of every usable file that the audit saw."""
    file = audit / SPLITS_FILE
    if not file.is_file():
        raise UserError(
            f"{audit} cannot decide splits: it was made of a list that lacks checksums, so nothing tells whether it is"
            " of these photographs",
            f"{_AGAIN}, of the photographs themselves",
        )
    try:
        for batch in read_batches(file):
            yield from zip(*(batch[name].to_pylist() for name in COMPARED), strict=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{file} does not tell which files were audited: {error}", _AGAIN) from error
