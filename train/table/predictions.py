"""From predictions files to one array per protocol: the same test images, in the same order, for every model."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError

COLUMNS = ("image_id", "group", "label", "predicted")
_NAME = re.compile(r"(.+)-(official|clean)-(\d+)")


@dataclass(frozen=True, slots=True)
class Predicted:
    """What one model's seeds said: `answers` (n_seeds, n_images) are classes by number."""

    seeds: tuple[int, ...]
    answers: npt.NDArray[np.int64]

    def of(self, seeds: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """The answers of some of its seeds."""
        return self.answers[[self.seeds.index(seed) for seed in seeds]]


@dataclass(frozen=True, slots=True)
class Tested:
    """All of one protocol: its test images' groups and labels (n_images,), and each model's answers."""

    groups: list[str]
    labels: npt.NDArray[np.int64]
    models: dict[str, Predicted]


def read_predictions(folder: Path) -> dict[str, Tested]:
    """Every `predictions/MODEL-PROTOCOL-SEED.parquet` of an experiment, by protocol, official first.

    Raises `UserError` where there are none, on a file of another name, one that cannot be read or lacks a column, and
    where two files of a protocol are not about the same test images with the same labels.
    """
    files = sorted((folder / "predictions").glob("*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no predictions/*.parquet", f"vl-dermnet train DATASET --out '{folder}'")
    by_protocol: dict[str, list[tuple[str, int, pa.Table, Path]]] = defaultdict(list)
    for file in files:
        named = _NAME.fullmatch(file.stem)
        if named is None:
            raise UserError(
                f"{file} is not named MODEL-PROTOCOL-SEED.parquet, as train names them", "move the file away"
            )
        model, protocol, seed = named.groups()
        by_protocol[protocol].append((model, int(seed), _read(file), file))
    order = [protocol for protocol in ("official", "clean") if protocol in by_protocol]
    return {protocol: _joined(by_protocol[protocol]) for protocol in order}


def _read(file: Path) -> pa.Table:
    again = "delete the file and train again: `vl-dermnet train`"
    try:
        absent = sorted({*COLUMNS} - {*pq.read_schema(file).names})
        if not absent:
            return pq.read_table(file, columns=list(COLUMNS))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{file} cannot be read: {error}", again) from error
    raise UserError(f"{file} has no column {', '.join(absent)}", again)


def _joined(found: list[tuple[str, int, pa.Table, Path]]) -> Tested:
    _, _, first, first_file = found[0]
    names: set[str] = set()
    for _, _, rows, file in found:
        if not rows.drop_columns(["predicted"]).equals(first.drop_columns(["predicted"])):
            raise UserError(
                f"{file} and {first_file} are not about the same test images, groups and labels",
                "delete the files that were trained on another dataset, and train again",
            )
        names |= {*rows["label"].to_pylist(), *rows["predicted"].to_pylist()}
    number = {name: i for i, name in enumerate(sorted(names))}

    def numbered(rows: pa.Table, column: str) -> npt.NDArray[np.int64]:
        return np.asarray([number[name] for name in rows[column].to_pylist()], dtype=np.int64)

    by_model: dict[str, dict[int, npt.NDArray[np.int64]]] = defaultdict(dict)
    for model, seed, rows, _ in found:
        by_model[model][seed] = numbered(rows, "predicted")
    models = {
        model: Predicted(tuple(sorted(seeds)), np.stack([seeds[seed] for seed in sorted(seeds)]))
        for model, seeds in by_model.items()
    }
    return Tested(first["group"].to_pylist(), numbered(first, "label"), models)
