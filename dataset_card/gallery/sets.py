"""Open several description sets of one dataset, from a folder or the Hub, all of one commit."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.dataset_folder import DescriptionSet, choose_set, read_sets
from builders.errors import UserError
from builders.features import features_of
from builders.loading import locate
from builders.shards import check_same_schema

# Every column that a page may show; a set may lack some (older builds, sets without findings or reviews).
COLUMNS = [
    "image_id",
    "image_sha256",
    "path",
    "label",
    "description",
    "findings",
    "finish_reason",
    "n_output_tokens",
    "flags",
    "duplicate_group",
    "split_official",
    "split_clean",
    "review",
    "review_note",
]


def open_sets(dataset: str, names: list[str] | None = None, revision: str | None = None) -> list[DescriptionSet]:
    """The sets called `names`, in that order, or all of them, the primary one first.

    Raises `UserError` on an unknown dataset or set, and on shards that are missing or disagree.
    """
    folder = locate(dataset, set_name=names[0] if names else None, revision=revision)
    chosen = names or [each.name for each in read_sets(folder)]
    if not Path(dataset).is_dir():
        for name in chosen:  # the Hub's snapshot holds only what was asked for
            locate(dataset, set_name=name, revision=folder.name)
    sets = [choose_set(read_sets(folder), name) for name in chosen]
    for each in sets:
        if not each.shards:
            raise UserError(f"the set '{each.name}' of {dataset} has no shards: the folder is incomplete")
        check_same_schema([shard for shards in each.shards.values() for shard in shards])
    return sets


def set_with_photographs(dataset: str, folder: Path) -> DescriptionSet | None:
    """The set of a dataset that holds the photographs themselves, None where none does.

    `folder` is what `dataset` was opened from. Of a repository on the Hub the set is fetched, which may be large.
    """
    holder = next((each for each in read_sets(folder) if each.build.get("with_images")), None)
    if holder is None or Path(dataset).is_dir():
        return holder
    locate(dataset, set_name=holder.name, revision=folder.name)
    return choose_set(read_sets(folder), holder.name)


def folder_of(described: DescriptionSet) -> Path:
    """The dataset folder, or the Hub's snapshot, that a set with shards is in."""
    return next(iter(described.shards.values()))[0].parent.parent


def read_columns(shards: list[Path]) -> pa.Table:
    """The shown columns of a split's shards, in their order, with `label` as the class's name, "" where none is."""
    names = label_names(shards[0])
    has = pq.read_schema(shards[0]).names
    table = pa.concat_tables(
        [pq.read_table(shard, columns=[name for name in COLUMNS if name in has]) for shard in shards]
    )
    _check_ids(table, shards[0])
    labels = ["" if number is None else names[number] for number in table["label"].to_pylist()]
    at: int = table.schema.get_field_index("label")
    return table.set_column(at, "label", pa.array(labels, pa.string()))


def _check_ids(table: pa.Table, shard: Path) -> None:
    """Raise `UserError` unless ids and hashes are what they say: pages name files and marks by them."""
    for column, n_digits in (("image_id", 16), ("image_sha256", 64)):
        is_one = re.compile(f"[0-9a-f]{{{n_digits}}}").fullmatch
        if not all(is_one(value or "") for value in table[column].to_pylist()):
            raise UserError(
                f"{shard.parent} was not made by `vl-dermnet build`: not every {column} is of {n_digits} hex digits"
            )


def label_names(shard: Path) -> list[str]:
    """The class names of a shard, in the order of their numbers."""
    return features_of(pq.read_schema(shard))["label"]["names"]


def model_of(described: DescriptionSet) -> str:
    """What wrote a set, for people: the model's id and the first digits of its revision."""
    model: dict[str, Any] = described.run.get("model", {})
    revision = str(model.get("revision") or "")[:12]
    return " ".join(part for part in (str(model.get("id") or ""), f"@ {revision}" if revision else "") if part)
