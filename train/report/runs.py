"""The finished runs of an experiment, read from its folder: predictions, and what optional files are beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError
from builders.files import read_json
from train.distances import FEATURES_OF
from train.evaluate import CLASS_NAMES, PIXELS
from train.pixels import PixelConfig

Labels = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answered to some images: labels (n,), predicted classes (n,) and logits (n, n_classes)."""

    image_ids: list[str]
    labels: Labels
    predicted: Labels
    logits: Logits | None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run. What comes from an optional file is None where that is not there, and `record` is empty."""

    name: str
    model: str
    protocol: str
    seed: int
    class_names: tuple[str, ...]
    test: Answers
    validation: Answers | None
    missing: dict[str, Answers] | None
    attention: list[dict[str, Any]] | None
    deletion: list[dict[str, Any]] | None
    pixels: PixelConfig | None
    record: dict[str, Any]

    @property
    def is_control(self) -> bool:
        """Whether something was taken from this run on purpose, as its name tells."""
        return "+" in self.model


@dataclass(frozen=True, slots=True)
class Found:
    """The runs, in order of name, and what could not be read, as sentences."""

    runs: list[FinishedRun]
    problems: list[str]


def read_runs(folder: Path) -> Found:
    """Every run with a predictions file. Optional files that are absent leave a gap, damaged ones a problem as well."""
    problems: list[str] = []
    runs: list[FinishedRun] = []
    results = folder / "results.json"
    recorded: dict[str, Any] = read_json(results).get("runs", {}) if results.is_file() else {}
    for file in sorted((folder / "predictions").glob("*.parquet")):
        table = _read(file, problems)
        if table is None:
            continue
        record, config_names = _record_of(folder, file.stem, problems)
        record = record or recorded.get(file.stem, {})
        names = _class_names(table) or config_names
        if names is None:
            names = tuple(sorted({*table["label"].to_pylist(), *table["predicted"].to_pylist()}))
            table = table.drop_columns("logits") if "logits" in table.column_names else table
            problems.append(f"{file.name}: nothing tells the order of its logits, so they are not used")
        model, protocol, seed = file.stem.rsplit("-", 2)
        others = {
            kind: _read(folder / kind / file.name, problems)
            for kind in ("validation", "missing", "attention", "deletion")
        }
        validation, missing, attention, deletion = others.values()
        runs.append(
            FinishedRun(
                name=file.stem,
                model=model,
                protocol=protocol,
                seed=int(seed),
                class_names=names,
                test=_answers(table, names),
                validation=None if validation is None else _answers(validation, names),
                missing=None if missing is None else _by_missing(missing, names),
                attention=None if attention is None else attention.to_pylist(),
                deletion=None if deletion is None else deletion.to_pylist(),
                pixels=None if attention is None else _pixels(attention),
                record=record,
            )
        )
    return Found(runs, [problem.replace(f"{folder}/", "") for problem in problems])


@dataclass(frozen=True, slots=True)
class Distances:
    """Distance to the nearest train image by image_id, and what the features are of in which it was measured."""

    by_id: dict[str, float]
    features_of: str


def read_distances(folder: Path, protocol: str) -> Distances | None:
    """How far test images are from train; None where no model sees images, and where the file cannot be read."""
    table = _read(folder / "distances" / f"{protocol}.parquet", [])
    if table is None:
        return None
    told = (table.schema.metadata or {}).get(FEATURES_OF, b"pooled features of the frozen image backbone").decode()
    return Distances(dict(zip(table["image_id"].to_pylist(), table["distance"].to_pylist(), strict=True)), told)


def _read(file: Path, problems: list[str]) -> pa.Table | None:
    if not file.is_file():
        return None
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        problems.append(f"{file.parent.name}/{file.name} cannot be read: {str(error).splitlines()[0]}")
        return None


def _record_of(folder: Path, name: str, problems: list[str]) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """What the model folder says of the training, and its class names in the order of the logits."""
    try:
        config = read_json(folder / "models" / name / "config.json")
    except FileNotFoundError:
        return {}, None
    except UserError as error:
        problems.append(str(error))
        return {}, None
    return config.get("training") or {}, tuple(config["class_names"]) if "class_names" in config else None


def _class_names(table: pa.Table) -> tuple[str, ...] | None:
    names = (table.schema.metadata or {}).get(CLASS_NAMES)
    return None if names is None else tuple(json.loads(names))


def _pixels(table: pa.Table) -> PixelConfig | None:
    text = (table.schema.metadata or {}).get(PIXELS)
    return None if text in (None, b"null") else PixelConfig.model_validate_json(text)


def _answers(table: pa.Table, names: tuple[str, ...]) -> Answers:
    position = {name: i for i, name in enumerate(names)}
    logits = None
    if "logits" in table.column_names:
        flat = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        logits = flat.reshape(-1, len(names)) if len(flat) == len(table) * len(names) else None
    labels, predicted = (
        np.asarray([position[each] for each in table[column].to_pylist()], dtype=np.int64)
        for column in ("label", "predicted")
    )
    ids = table["image_id"].to_pylist() if "image_id" in table.column_names else [str(i) for i in range(len(table))]
    return Answers(ids, labels, predicted, logits)


def _by_missing(table: pa.Table, names: tuple[str, ...]) -> dict[str, Answers]:
    kinds = np.asarray(table["missing"].to_pylist())
    return {kind: _answers(table.filter(pa.array(kinds == kind)), names) for kind in sorted(set(kinds.tolist()))}
