"""An experiment: a matrix of models, protocols and seeds, each trained, tested once and written; resumable."""

import copy
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from rich.console import Console

from builders.errors import UserError, choose
from builders.files import read_json, write_json, write_table
from train.config import Protocol, TrainConfig
from train.data import Examples, Split, load_examples, split_of
from train.fusion import FUSIONS
from train.inputs import CachedInputs, Inputs
from train.loop import Fitted, fit, predict_logits
from train.model import FusionModel, save_model
from train.parts import Parts, load_parts
from train.progress import progress_bar, say
from train.table import experiment_table

_SMALL_BATCH = 1 << 23  # values that a step reads
# What may differ when an experiment is continued: the matrix may grow, and paths and the device may change.
_MAY_CHANGE = ("dataset", "out", "images", "models", "n_seeds", "protocol", "device")


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the matrix; `name` is that of its predictions file and model folder."""

    model: str
    protocol: Protocol
    seed: int

    @property
    def name(self) -> str:
        """MODEL-PROTOCOL-SEED."""
        return f"{self.model}-{self.protocol}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """What `run` did: the experiment's folder, the runs in it that were trained now, and those found finished."""

    folder: Path
    trained: tuple[str, ...]
    skipped: tuple[str, ...]


def run(config: TrainConfig) -> Experiment:
    """Train every (model, protocol, seed) that the experiment folder lacks, and write `results.json`.

    Progress goes to stderr. A run is finished when its predictions file exists, which is written last; so an
    interrupted experiment is continued by the same call. Raises `UserError` where the folder holds an experiment
    with other settings or on another dataset.
    """
    console = Console(stderr=True)
    datasets.disable_progress_bars()  # ours are below
    models = config.models
    for name in models:
        choose("model", name, list(FUSIONS))
    examples = load_examples(config)
    _write_config(config, examples)
    runs = [Run(m, p, s) for p in config.protocols for s in range(config.n_seeds) for m in models]
    pending = [each for each in runs if not _predictions_of(config, each).is_file()]
    skipped = tuple(each.name for each in runs if each not in pending)
    splits: dict[Protocol, Split] = {protocol: split_of(examples, protocol) for protocol in config.protocols}
    _tell_data(console, examples, splits)
    if skipped:
        say(console, f"{len(skipped)} of {len(runs)} runs are finished already and are skipped")

    if pending:
        device = device_of(config)
        parts = load_parts(config, examples, {each.model for each in pending}, device, console)
        with progress_bar(console, "train", len(pending) * config.n_epochs) as advance:
            for each in pending:
                _train_one(config, examples, splits[each.protocol], each, parts, device, advance, console)
    write_json(
        config.out / "results.json",
        {
            "fingerprint": examples.fingerprint,
            "table": experiment_table(config.out).as_json(),
            "runs": {file.parent.name: read_json(file)["training"] for file in _model_configs(config)},
        },
    )
    return Experiment(config.out, tuple(each.name for each in pending), skipped)


def device_of(config: TrainConfig) -> torch.device:
    """The device that `config.device` names; `auto` is CUDA where there is one, else the CPU."""
    n_cuda = torch.cuda.device_count()
    allowed = ["cpu", *(["cuda"] if n_cuda else []), *(f"cuda:{i}" for i in range(n_cuda))]
    if config.device == "auto":
        return torch.device("cuda" if n_cuda else "cpu")
    choose("device", config.device, ["auto", *allowed])
    return torch.device(config.device)


def _train_one(
    config: TrainConfig,
    examples: Examples,
    split: Split,
    this: Run,
    parts: Parts,
    device: torch.device,
    advance: Callable[[int], None],
    console: Console,
) -> None:
    """Fit one model, test it once, write its folder and then its predictions."""
    started = time.monotonic()
    torch.manual_seed(this.seed)
    image, text = (parts.image, parts.text) if config.is_frozen else copy.deepcopy((parts.image, parts.text))
    model = FusionModel(this.model, examples.class_names, image, text, config.hidden_dim, config.dropout).to(device)
    with _threads_for(model, parts.inputs, config, device):
        fitted = fit(model, parts.inputs, examples.labels, split, config, this.seed, lambda _: advance(1))
    logits = predict_logits(model, parts.inputs, split.test, config.batch_size)
    save_model(
        model,
        _model_folder(config, this),
        config.max_text_tokens,
        training=_record(config, this, model, split, fitted, time.monotonic() - started),
        frozen_backbones=config.out / "backbones" if config.is_frozen else None,
    )
    write_table(_predictions_of(config, this), _predictions(examples, split, logits))
    say(
        console,
        f"{this.name}: validation macro-F1 {fitted.best.validation_macro_f1:.3f} "
        f"in epoch {fitted.best.epoch} of {config.n_epochs}, {time.monotonic() - started:.1f} s",
    )


@contextmanager
def _threads_for(model: FusionModel, inputs: Inputs, config: TrainConfig, device: torch.device) -> Generator[None]:
    """One thread where a batch of cached features is small; all of them elsewhere.

    Measured on 2 busy cores, heads on 65 tokens of 32 dimensions: 0.4 s with one thread, 3.9 s with two, because each
    of many tiny operations waits for a thread that is not running. On idle cores there is no difference.
    """
    before = torch.get_num_threads()
    is_small = isinstance(inputs, CachedInputs) and config.batch_size * inputs.n_values_per_row(model) < _SMALL_BATCH
    if is_small and device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_config(config: TrainConfig, examples: Examples) -> None:
    """Write the resolved config, or check that the folder's experiment is the one that is asked for."""
    path = config.out / "config.json"
    resolved = {**config.model_dump(mode="json"), "epochs": config.n_epochs, "fingerprint": examples.fingerprint}
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"{config.out} is a file, and an experiment is a folder", "choose another --out")
    if path.is_file() and any((config.out / "predictions").glob("*.parquet")):  # else nothing was trained with it
        before: dict[str, Any] = read_json(path)
        for key, value in resolved.items():
            if key not in _MAY_CHANGE and before.get(key) != value:
                raise UserError(
                    f"{config.out} holds an experiment with another {key}: there {before.get(key)!r}, now {value!r}",
                    "choose another --out, or delete the folder to train everything again",
                )
    elif not path.is_file() and config.out.is_dir() and any(config.out.iterdir()):
        raise UserError(f"{config.out} is not empty and holds no experiment", "choose another --out")
    write_json(path, resolved)


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    """Absolute paths cut to their last part: model folders are passed on."""
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in values.items()
    }


def _tell_data(console: Console, examples: Examples, splits: dict[Protocol, Split]) -> None:
    for protocol, split in splits.items():
        say(
            console,
            f"{protocol}: {len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test rows, "
            f"{len(examples.class_names)} classes",
        )
    if examples.n_without_text:
        say(console, f"{examples.n_without_text} rows have no description; their text is empty")


def _record(
    config: TrainConfig, this: Run, model: FusionModel, split: Split, fitted: Fitted, seconds: float
) -> dict[str, Any]:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        **asdict(this),
        "n_train": len(split.train),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "n_trained_parameters": trained,
        "n_fusion_parameters": model.fusion.n_parameters,
        "seconds": round(seconds, 2),
        "best": asdict(fitted.best),
        "history": [asdict(epoch) for epoch in fitted.history],
        "config": _without_places(config.model_dump(mode="json")),
    }


def _predictions(examples: Examples, split: Split, logits: npt.NDArray[np.float32]) -> pa.Table:
    """One row per test image, in the order of `image_id`."""
    names = examples.class_names
    table: pa.Table = pa.Table.from_pydict(
        {
            "image_id": pa.array([examples.image_ids[row] for row in split.test], pa.string()),
            "group": pa.array([examples.groups[row] for row in split.test], pa.string()),
            "label": pa.array([names[examples.labels[row]] for row in split.test], pa.string()),
            "predicted": pa.array([names[best] for best in logits.argmax(axis=1)], pa.string()),
            "logits": pa.array(list(logits), pa.list_(pa.float32())),
        }
    )
    return table


def _predictions_of(config: TrainConfig, this: Run) -> Path:
    return config.out / "predictions" / f"{this.name}.parquet"


def _model_configs(config: TrainConfig) -> list[Path]:
    """Of every finished run, also of earlier calls, whose model folder was not deleted since."""
    finished = {file.stem for file in (config.out / "predictions").glob("*.parquet")}
    return [file for file in sorted((config.out / "models").glob("*/config.json")) if file.parent.name in finished]


def _model_folder(config: TrainConfig, this: Run) -> Path:
    return config.out / "models" / this.name
