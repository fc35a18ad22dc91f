"""Heads on features from files: a labelled list and feature files in place of a dataset, photographs and backbones."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch

from builders.audit.features import KEYS, read_columns
from builders.errors import UserError, choose
from builders.schema import IndexRow, image_id_of
from builders.splits import derive_splits
from train.config import Protocol, TrainConfig
from train.data import Examples
from train.given_tower import GivenFeatures
from train.inputs import CachedInputs

SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
Floats = npt.NDArray[np.float32]


class FeatureTable:
    """The rows of a labelled list that every feature file knows, in the order of their ids, and their features.

    `vectors` maps the name of each wanted array to (n, width) floats. `n_missing` counts rows of the list without
    features, such as byte copies that were left out when features were computed.
    """

    def __init__(self, config: TrainConfig) -> None:
        listed = _read_list(Path(config.dataset))
        wanted = dict.fromkeys((*config.image_features, *config.text_features))
        found: dict[str, tuple[Path, str, dict[str, int], Any]] = {}  # array -> its file, key column, places, values
        there: list[str] = []
        for file in config.features:
            columns = read_columns(file)
            key = _key_of(file, columns, listed)
            places = _places_of(file, key, columns)
            for name in columns:
                if name in KEYS or name not in wanted:
                    continue
                if name in found:
                    raise UserError(
                        f"'{name}' is in {found[name][0]} and in {file}: which one?", "rename one, or give one file"
                    )
                if columns[name].ndim != 2 or len(columns[name]) != len(columns[key]):
                    raise UserError(
                        f"'{name}' in {file} is of shape {columns[name].shape}; features of its "
                        f"{len(columns[key])} files are of shape ({len(columns[key])}, width)",
                        "write one row of numbers for each file",
                    )
                found[name] = (file, key, places, columns[name])
            there += [name for name in columns if name not in KEYS]
        for name in wanted:
            choose("array of features", name, sorted(set(there)))
        used = {name: found[name] for name in wanted}
        rows = sorted(range(len(listed["path"])), key=lambda row: image_id_of(listed["path"][row]))
        self.rows = [row for row in rows if all(listed[key][row] in places for _, key, places, _ in used.values())]
        self.n_missing = len(rows) - len(self.rows)
        if not self.rows:
            raise UserError(f"the feature files know none of the {len(rows)} files in {config.dataset}")
        self.listed = {name: [values[row] for row in self.rows] for name, values in listed.items()}
        self.vectors: dict[str, Floats] = {}
        for name, (_, key, places, values) in used.items():
            self.vectors[name] = np.asarray(values[[places[each] for each in self.listed[key]]], dtype=np.float32)
            if not np.isfinite(self.vectors[name]).all():
                raise UserError(f"'{name}' holds values that are not finite", "compute the features again, in float32")


def given_examples(config: TrainConfig) -> Examples:
    """The rows of the list `config.dataset` (CSV or Parquet: path, split, label, and group where there is one).

    Rows with one `group` are of one lesion, patient or series: a validation part that is taken out of train (where the
    list has none) never cuts a group, and the clean protocol keeps each group in one split only. Rows whose image
    features are the same number for number are byte copies, as in a dataset of photographs.
    Raises `UserError` on missing columns, unknown splits, rows without a label, and unknown arrays.
    """
    table = FeatureTable(config)
    listed = table.listed
    names = tuple(sorted(set(listed["label"])))
    if "" in names:
        raise UserError(f"{listed['label'].count('')} rows of {config.dataset} have no label", "fill the column label")
    # Photographs are copies where all image features are the same. Texts may be: patients of one age are no copies.
    contents = _hashes_of(table, config.image_features) if config.image_features else listed["path"]
    rows = [
        IndexRow(
            image_id=image_id_of(path),
            image_sha256=content,
            path=path,
            split=split,
            label=label,
            width_px=0,
            height_px=0,
            n_bytes=0,
            format="",
            status="ok",
            reason="",
        )
        for path, split, label, content in zip(listed["path"], listed["split"], listed["label"], contents, strict=True)
    ]
    groups = {row.image_id: group for row, group in zip(rows, listed["group"], strict=True) if group}
    derived, _ = derive_splits(rows, groups=groups)
    splits: dict[Protocol, npt.NDArray[np.str_]] = {
        "official": np.array([derived[row.image_id].split_official for row in rows], dtype=np.str_),
        "clean": np.array([derived[row.image_id].split_clean for row in rows], dtype=np.str_),
    }
    return Examples(
        image_ids=[row.image_id for row in rows],
        image_sha256s=_hashes_of(table, tuple(table.vectors)),
        labels=np.array([names.index(row.label) for row in rows], dtype=np.int64),
        class_names=names,
        texts=[""] * len(rows),
        groups=[derived[row.image_id].duplicate_group or row.image_sha256 for row in rows],
        splits=splits,
        read_image=None,
        n_without_text=0,
        n_without_features=table.n_missing,
    )


def _hashes_of(table: FeatureTable, names: tuple[str, ...]) -> list[str]:
    """SHA-256 of what each row has in the arrays `names`."""
    arrays = [table.vectors[name] for name in names]
    return [
        hashlib.sha256(b"".join(array[row].tobytes() for array in arrays)).hexdigest() for row in range(len(table.rows))
    ]


def given_inputs(
    config: TrainConfig, device: torch.device
) -> tuple[GivenFeatures | None, GivenFeatures | None, CachedInputs]:
    """What stands for the two backbones, and the features as both pooled vectors and as one token per row."""
    table = FeatureTable(config)
    towers: list[GivenFeatures | None] = []
    arrays: list[tuple[Floats, Floats] | None] = []
    for names in (config.image_features, config.text_features):
        if not names:
            towers.append(None)
            arrays.append(None)
            continue
        pooled = np.concatenate([table.vectors[name] for name in names], axis=1)
        towers.append(GivenFeatures(names, pooled.shape[1]))
        arrays.append((pooled[:, None], pooled))
    mask = None if arrays[1] is None else np.ones((len(table.rows), 1), dtype=np.bool_)
    return towers[0], towers[1], CachedInputs(arrays[0], arrays[1], mask, device)


def _read_list(file: Path) -> dict[str, list[str]]:
    """`path`, `split`, `label`, `group` ("" where there is none) and further keys, one string per row."""
    if not file.is_file():
        raise UserError(f"no list at {file}", "a CSV or Parquet file with the columns path, split and label")
    try:
        if file.suffix.lower() == ".parquet":
            table = pq.read_table(file)
        else:
            options = pacsv.ConvertOptions(column_types=dict.fromkeys(("path", "split", "label", "group"), pa.string()))
            table = pacsv.read_csv(file, convert_options=options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read as a list: {error}", "save it as CSV in UTF-8, or as Parquet"
        ) from error
    absent = [name for name in ("path", "split", "label") if name not in table.column_names]
    if absent:
        raise UserError(f"{file} has no column {', '.join(absent)}; it has: {', '.join(table.column_names)}")
    listed = {
        name: ["" if value is None else str(value) for value in table[name].to_pylist()]
        for name in ("path", "split", "label", "group", "image_id", "image_sha256", "sha256")
        if name in table.column_names
    }
    for split in sorted(set(listed["split"])):
        choose("split", split, sorted(SPLIT_NAMES))
    if len(set(listed["path"])) < len(listed["path"]):
        raise UserError(f"{file} names a path twice")
    listed["split"] = [SPLIT_NAMES[split] for split in listed["split"]]
    return {"group": [""] * len(listed["path"]), **listed}


def _places_of(file: Path, key: str, columns: Mapping[str, Any]) -> dict[str, int]:
    """Where each file's row is. Bytes may be there twice, and so may their sha256; a name may not."""
    names = [str(value) for value in columns[key]]
    places = {name: place for place, name in enumerate(names)}
    if key in ("path", "image_id") and len(places) < len(names):
        twice = next(name for place, name in enumerate(names) if places[name] != place)
        raise UserError(f"{file} names a {key} twice: {twice}", "leave one of its rows out")
    return places


def _key_of(file: Path, columns: Mapping[str, Any], listed: Mapping[str, list[str]]) -> str:
    key = next((key for key in KEYS if key in columns and key in listed), None)
    if key is None:
        raise UserError(
            f"{file} names no files as the list does: it has {', '.join(columns)}",
            f"add one of the columns {', '.join(KEYS)} to both",
        )
    return key
