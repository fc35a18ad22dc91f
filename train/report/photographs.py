"""Texts and photographs of the few images that a report shows, from the dataset and from a folder of photographs."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from builders.dataset_folder import choose_set, read_sets
from builders.errors import UserError
from builders.loading import locate
from builders.sources import open_source


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the dataset; `photograph` is the file's bytes, None where they cannot be had."""

    label: str
    text: str
    photograph: bytes | None


@dataclass(slots=True)
class Examples:
    """What was found, by image_id, and why something was not, in sentences without a machine's paths."""

    by_id: dict[str, Example] = field(default_factory=dict[str, Example])
    reasons: list[str] = field(default_factory=list[str])


def read_examples(config: dict[str, Any], images: str | None, wanted: set[str], commit: str | None = None) -> Examples:
    """The rows `wanted` of the dataset that an experiment's `config.json` names; nothing here raises for absent data.

    `commit` is the one that was trained on, of a Hub repository: its branch may have moved since.
    `images` is the photographs' source where the dataset does not hold them; by default the one that was trained on.
    Only row groups with wanted rows are read.
    """
    found = Examples()
    dataset = str(config.get("dataset", ""))
    if config.get("features"):
        found.reasons.append("features from files come without text and photograph, so the errors have none")
        return found
    try:
        folder = locate(dataset, set_name=config.get("set_name"), revision=commit or config.get("revision"))
        chosen = choose_set(read_sets(folder), config.get("set_name"))
    except UserError:
        found.reasons.append(
            f"the dataset {Path(dataset).name or '(unnamed)'} cannot be opened from here, so the errors have no text "
            "and no photograph"
        )
        return found
    rows = _rows(
        [shard for shards in chosen.shards.values() for shard in shards],
        wanted,
    )
    place = images or config.get("images")
    photographs, reason = _photographs(rows, place)
    if reason:
        found.reasons.append(reason)
    for row in rows:
        found.by_id[row["image_id"]] = Example(row["label"], row["description"] or "", photographs.get(row["image_id"]))
    return found


def _rows(shards: list[Path], wanted: set[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
            names: list[str] = features["label"]["names"]
            columns = ["image_id", "image_sha256", "path", "label", "description"]
            columns += ["image"] if "image" in file.schema_arrow.names else []
            for number in range(file.num_row_groups):
                ids = file.read_row_group(number, columns=["image_id"])["image_id"].to_pylist()
                if wanted.isdisjoint(ids):
                    continue
                rows += [
                    {**row, "label": names[row["label"]] if row["label"] is not None else ""}
                    for row in file.read_row_group(number, columns=columns).to_pylist()
                    if row["image_id"] in wanted
                ]
    return rows


def _photographs(rows: list[dict[str, Any]], place: Any) -> tuple[dict[str, bytes], str]:
    """Bytes by image_id, each verified by its sha256, and why some are not there."""
    read = {row["image_id"]: row["image"]["bytes"] for row in rows if row.get("image") and row["image"].get("bytes")}
    if place is not None and len(read) < len(rows):
        try:
            with open_source(str(place)) as source:
                for row in rows:
                    if row["image_id"] not in read:
                        try:
                            read[row["image_id"]] = source.read(row["path"])
                        except OSError:
                            continue
        except UserError:
            return (
                read,
                "the folder of photographs that was trained on is not here: vl-dermnet report EXP --images ROOT",
            )
    sha256s = {row["image_id"]: row["image_sha256"] for row in rows}
    verified = {key: data for key, data in read.items() if hashlib.sha256(data).hexdigest() == sha256s[key]}
    if rows and not read:
        return {}, "the dataset holds no photographs and none were given: vl-dermnet report EXP --images ROOT"
    n_absent = len(rows) - len(verified)
    return verified, f"{n_absent} of {len(rows)} photographs are not there or have other bytes" if n_absent else ""
