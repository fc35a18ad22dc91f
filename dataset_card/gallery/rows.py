"""What a gallery shows, as plain values: one row per photograph of any set, and per set what it says of each row."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builders.dataset_folder import DescriptionSet
from builders.foreign_text import visible
from builders.review import description_id
from dataset_card.gallery.sets import read_columns

_FACTS = ("image_id", "image_sha256", "path", "label", "duplicate_group", "split_official", "split_clean", "split")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows sorted by label, split and path: `photographs` has the columns `_FACTS`, one row per photograph.

    `described` maps a set's name to a table aligned with it: nulls where the set lacks the photograph.
    """

    photographs: pa.Table
    described: dict[str, pa.Table]

    def __len__(self) -> int:
        return self.photographs.num_rows


def read_rows(sets: list[DescriptionSet]) -> Rows:
    """All photographs of all sets, each once; what a photograph is, is told by the first set that holds it."""
    tables = {each.name: _read(each) for each in sets}
    facts: pa.Table = pa.concat_tables([table.select(_FACTS) for table in tables.values()])
    first: dict[str, int] = {}
    for position, image_id in enumerate(facts["image_id"].to_pylist()):
        first.setdefault(image_id, position)
    order = [("label", "ascending"), ("split", "descending"), ("path", "ascending")]  # train before test
    photographs = facts.take(list(first.values())).sort_by(order)
    ids: list[str] = photographs["image_id"].to_pylist()
    return Rows(photographs, {name: _aligned(table, ids) for name, table in tables.items()})


def _aligned(table: pa.Table, ids: list[str]) -> pa.Table:
    """The rows of `table` with these ids, in their order; nulls for an id that it lacks."""
    place = {image_id: position for position, image_id in enumerate(table["image_id"].to_pylist())}
    return table.take(pa.array([place.get(image_id) for image_id in ids], pa.int64()))


def _read(described: DescriptionSet) -> pa.Table:
    tables: list[pa.Table] = []
    for split, shards in described.shards.items():
        table = read_columns(shards)
        tables.append(table.append_column("split", pa.array([split] * table.num_rows, pa.string())))
    return pa.concat_tables(tables)


def row_facts(rows: Rows, thumbnails: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Everything to filter by and to place pictures with, for all rows, column by column; words numbered.

    `thumbnails` maps a photograph's sha256 to its thumbnail's width and height. In the result, `words[name]` lists
    what the numbers in the column `name` stand for; `flags` has one column per set, null where the set has no row.
    """
    columns = rows.photographs.to_pydict()
    words: dict[str, list[str]] = {}
    numbered: dict[str, list[int]] = {}
    for name in ("label", "split", "split_official", "split_clean", "duplicate_group"):
        words[name] = sorted(set(columns[name]))
        number_of = {word: number for number, word in enumerate(words[name])}
        numbered[name] = [number_of[word] for word in columns[name]]
    flags = {name: table["flags"].to_pylist() for name, table in rows.described.items()}
    words["flags"] = sorted({flag for column in flags.values() for row in column for flag in row or ()})
    number_of = {flag: number for number, flag in enumerate(words["flags"])}
    return {
        "words": {name: [visible(word) for word in listed] for name, listed in words.items()},
        "image_id": columns["image_id"],
        "path": [visible(path) for path in columns["path"]],
        **numbered,
        "thumbnail": [sha256[:16] if sha256 in thumbnails else "" for sha256 in columns["image_sha256"]],
        "size_px": [thumbnails.get(sha256, (0, 0)) for sha256 in columns["image_sha256"]],
        "flags": [
            [None if row is None else [number_of[flag] for flag in row] for row in column] for column in flags.values()
        ],
    }


def text_chunks(table: pa.Table, n_rows: int) -> Iterator[list[dict[str, Any] | None]]:
    """One set's texts in pieces of `n_rows` rows; None where the set lacks a photograph."""
    for start in range(0, table.num_rows, n_rows):
        yield [_said(row) if row["image_id"] is not None else None for row in table.slice(start, n_rows).to_pylist()]


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """What one set says of one photograph. `id` names the text, so that a mark is of this text and no other."""
    facts = [f"{row['n_output_tokens']} tokens", f"finished: {visible(row['finish_reason'])}"]
    if row.get("review") or row.get("review_note"):
        facts.append(f"reviewed before: {visible(row['review'])} {visible(row['review_note'])}".rstrip())
    return {
        "id": description_id(row["description"]),
        "text": visible(row["description"]),
        "findings": _findings(row.get("findings") or ""),
        "facts": facts,
    }


def _findings(text: str) -> list[tuple[str, str]]:
    """Findings as names and values; JSON that is no object is shown as it stands."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return [("findings", visible(text))]
    if not isinstance(found, dict):
        return [("findings", visible(text))]
    return [
        (visible(name), ", ".join(visible(each) for each in (value if isinstance(value, list) else [value])))
        for name, value in found.items()
    ]
