"""Whether an audit is of the photographs that a dataset is built of, and derived its splits in the same way."""

from pathlib import Path
from typing import Any

from builders.errors import UserError
from builders.files import read_json, read_table
from builders.join_images import some
from builders.schema import IndexRow

AUDIT_FILE = "audit.json"
SPLITS_FILE = "splits.parquet"
COMPARED = ("image_id", "image_sha256", "split", "label")
_AGAIN = "vl-dermnet audit IMAGES --out AUDIT"


def check_audit_is_of(audit: Path, index: list[IndexRow], seed: int, validation_fraction: float) -> None:
    """Raise `UserError` unless the audit in the folder `audit` knows every row of `index` as it is here.

    It may know more files: a dataset can be built of some. Its groups of near-copies would mean nothing for other
    photographs, and its figures on the card would be of another split with another seed or fraction.
    """
    settings: dict[str, Any] = read_json(audit / AUDIT_FILE).get("settings", {})
    for name, option, here in (("seed", "--seed", seed), ("validation_fraction", "", validation_fraction)):
        there = settings.get(name)
        if there != here:
            raise UserError(
                f"{audit} derived its splits with {name} {there}, the dataset is built with {here}: the card would tell"
                " two different splits",
                f"{option} {there}" if option and there is not None else f"{_AGAIN} with {name} {here}",
            )
    known = _known_files(audit)
    strange = [row.path for row in index if row.image_id not in known]
    changed = [
        row.path
        for row in index
        if row.image_id in known and known[row.image_id] != (row.image_sha256, row.split, row.label)
    ]
    if strange or changed:
        parts = [f"{len(strange):,} are not in it: {some(strange)}"] if strange else []
        parts += [f"{len(changed):,} have other bytes, another split or label: {some(changed)}"] if changed else []
        raise UserError(
            f"{audit} is not an audit of these {len(index):,} photographs; {'; '.join(parts)}",
            f"{_AGAIN}, of the photographs that were described",
        )


def _known_files(audit: Path) -> dict[str, tuple[str, str, str]]:
    """`image_id` -> sha256, split and label of every usable file that the audit saw."""
    file = audit / SPLITS_FILE
    if not file.is_file():
        raise UserError(
            f"{audit} cannot decide splits: it was made of a list that lacks checksums, so nothing tells whether it is"
            " of these photographs",
            f"{_AGAIN}, of the photographs themselves",
        )
    try:
        columns = read_table(file).select(COMPARED).to_pydict()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} does not tell which files were audited: {error}", _AGAIN) from error
    ids, *rest = (columns[name] for name in COMPARED)
    return dict(zip(ids, zip(*rest, strict=True), strict=True))
