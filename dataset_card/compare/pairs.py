"""The rows of two description sets, photograph by photograph, as a stream: never all texts in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from builders.dataset_folder import SPLITS, DescriptionSet
from builders.errors import UserError
from dataset_card.gallery.sets import label_names

Row = dict[str, Any]
_COLUMNS = ["image_id", "image_sha256", "path", "label", "description", "findings", "n_output_tokens", "flags"]


@dataclass(slots=True)
class Unpaired:
    """Rows that have no partner: in one set only, or of other bytes than the other set's row of the same file."""

    n_only_a: int = 0
    n_only_b: int = 0
    n_changed: int = 0


def pairs(a: DescriptionSet, b: DescriptionSet, unpaired: Unpaired) -> Iterator[tuple[Row, Row]]:
    """Rows of both sets that are of the same file and bytes, in the order of `image_id` within each split.

    A row has its class's name as `label`, "" where there is none, and its split as `split`. Rows without a partner
    are counted in `unpaired` on the way. Raises `UserError` where shards are not sorted by `image_id`.
    """
    for split in SPLITS:
        rows_a, rows_b = _rows(a, split), _rows(b, split)
        row_a, row_b = next(rows_a, None), next(rows_b, None)
        while row_a is not None or row_b is not None:
            if row_b is None or (row_a is not None and row_a["image_id"] < row_b["image_id"]):
                unpaired.n_only_a += 1
                row_a = next(rows_a, None)
            elif row_a is None or row_b["image_id"] < row_a["image_id"]:
                unpaired.n_only_b += 1
                row_b = next(rows_b, None)
            else:
                if row_a["image_sha256"] == row_b["image_sha256"]:
                    yield row_a, row_b
                else:
                    unpaired.n_changed += 1
                row_a, row_b = next(rows_a, None), next(rows_b, None)


def _rows(described: DescriptionSet, split: str) -> Iterator[Row]:
    """The rows of one split, checked to be in the order of `image_id`."""
    shards = described.shards.get(split, [])
    before = ""
    for shard in shards:
        for row in _shard_rows(shard):
            if row["image_id"] <= before:
                raise UserError(
                    f"{shard} is not sorted by image_id: '{row['image_id']}' stands after '{before}'",
                    "build the dataset again: `vl-dermnet build`",
                )
            before = row["image_id"]
            yield {**row, "split": split}


def _shard_rows(shard: Path) -> Iterator[Row]:
    names = label_names(shard)
    with pq.ParquetFile(shard) as file:
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=2_000, columns=columns):
            for row in batch.to_pylist():
                row["label"] = "" if row["label"] is None else names[row["label"]]
                yield row
