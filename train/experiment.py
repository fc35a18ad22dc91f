"""An experiment: a matrix of models, protocols and seeds, each trained, tested once and written; resumable."""

import copy
import io
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console

from builders.errors import UserError, choose
from builders.files import read_json, write_json, write_table
from builders.index import n_cores
from train.at_once import Note, at_once
from train.checkpoint import FILE_NAME, MAY_CHANGE, MAY_COME
from train.config import EMAP, Protocol, TrainConfig
from train.controls import CONTROLS
from train.controls.emap import emap_logits, reference_rows
from train.controls.setting import Controlled, Setting
from train.data import Examples, Split, load_examples, split_of
from train.distances import lacks_distances, write_distances
from train.evaluate import logits_table, write_evaluation
from train.imbalance import IMBALANCE
from train.inputs import CachedInputs, Inputs
from train.loop import Fitted, fit, predict_logits
from train.matrix import Run, emap_runs, longest_first, model_folder_of, predictions_of, record_of, records, runs_of
from train.model import FusionModel, load_fusion_model, save_model
from train.model_card import refresh_cards
from train.parts import Parts, load_parts
from train.processes import ALONE, Processes, joined_processes
from train.progress import progress_bar, say
from train.recipes import assumed
from train.report.write import write_report
from train.table import experiment_table

_SMALL_BATCH = 1 << 23  # values that a step reads
_REFIT = "refit"  # below a run's checkpoints: those of its second fit


@dataclass(frozen=True, slots=True)
class Experiment:
    """What `run` did: the experiment's folder, the runs in it that were trained now, and those found finished."""

    folder: Path
    trained: tuple[str, ...]
    skipped: tuple[str, ...]
    is_first: bool = True  # of several processes, the one that writes and speaks


def run(config: TrainConfig) -> Experiment:
    """Train every (model, protocol, seed) that the experiment folder lacks; write `results.json` and `report.html`.

    Progress goes to stderr. A run is finished when its predictions file exists, which is written last; so an
    interrupted experiment is continued by the same call, and the run that was interrupted from its checkpoint. Below
    torchrun, its processes share every batch. Raises `UserError` where the folder holds an experiment with other
    settings or on another dataset.
    """
    with joined_processes() as processes:
        return _run(config, processes)


def _run(config: TrainConfig, processes: Processes) -> Experiment:
    console = Console(stderr=True, quiet=not processes.is_first)
    if config.n_jobs > 1 and processes.n > 1:
        raise UserError("torchrun's processes share every run, and --jobs would share the runs out", "leave one out")
    datasets.disable_progress_bars()  # ours are below
    runs = runs_of(config)
    choose("imbalance", config.imbalance, list(IMBALANCE))
    with processes.first_alone():
        examples = load_examples(config)
        if processes.is_first:
            _write_config(config, examples)
    pending = processes.told_by_first([each for each in runs if not predictions_of(config, each).is_file()])
    skipped = [each.name for each in runs if each not in pending]
    splits: dict[Protocol, Split] = {protocol: split_of(examples, protocol) for protocol in config.protocols}
    _tell_data(console, examples, splits)
    if skipped:
        say(console, f"{len(skipped)} of {len(runs)} runs are finished already and are skipped")

    device = device_of(config)
    with_distances = processes.told_by_first(
        lacks_distances(config, examples)
    )  # also those of an earlier program's runs
    if pending or with_distances:
        needed = {each.model for each in pending} | (set(config.models) if with_distances else set())
        with processes.first_alone():  # fills the cache
            parts = load_parts(config, examples, needed, device, console)
            if processes.is_first:
                write_distances(config, examples, splits, parts, console)
        with progress_bar(console, "train", len(pending) * config.n_epochs) as advance:
            if min(config.n_jobs, len(pending)) > 1:
                _train_at_once(config, pending, advance, console)
            else:
                for each in pending:
                    split = splits[each.protocol]
                    _train_one(config, examples, split, each, parts, device, advance, console, processes)
    trained = [each.name for each in pending]
    if processes.is_first:
        for protocol in config.protocols if EMAP in config.controls else ():
            asked = emap_runs(config, protocol)
            unasked = [each for each in asked if not predictions_of(config, each).is_file()]
            _project(config, examples, splits[protocol], unasked, device, console)
            trained += [each.name for each in unasked]
            skipped += [each.name for each in asked if each not in unasked]
        table = experiment_table(config.out).as_json()
        write_json(
            config.out / "results.json",
            {
                "fingerprint": examples.fingerprint,
                "commit": examples.commit,
                "described_by": examples.described_by,
                "assumptions": read_json(config.out / "config.json")["assumptions"],
                "table": table,
                "runs": records(config),
            },
        )
        refresh_cards(config.out, table)
        write_report(config.out, say=lambda message: say(console, message))
    return Experiment(config.out, tuple(trained), tuple(skipped), processes.is_first)


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
    processes: Processes,
) -> None:
    """Fit one model, test it once, write its folder and then its predictions."""
    started = time.monotonic()

    def build() -> Controlled:
        image, text = (parts.image, parts.text) if config.is_frozen else copy.deepcopy((parts.image, parts.text))
        setting = Setting(this.model, this.seed, examples, split, image, text, parts.inputs, config, device, console)
        return CONTROLS[this.control](setting) if this.control else Controlled(setting.build(image, text), parts.inputs)

    def tell(message: str) -> None:
        say(console, f"{this.name}: {message}")

    def fit_on(model: FusionModel, rows: Split, settings: TrainConfig, chooses: bool = True) -> Fitted:
        with threads_for(model, parts.inputs, config, device):
            return fit(
                model,
                controlled.inputs,
                examples.labels,
                rows,
                settings,
                this.seed,
                on_epoch=lambda _: advance(int(chooses)),
                checkpoints=_checkpoints_of(config, this) / ("" if chooses else _REFIT),
                fingerprint=examples.fingerprint,
                processes=processes,
                tell=tell,
                chooses=chooses,
            )

    with processes.first_alone():  # a control may fill the cache
        controlled = build()
    model, inputs = controlled.model, controlled.inputs
    settings = controlled.config or config
    fitted = fit_on(model, split, settings)
    # What did not fit in memory will not fit now, in a second fit or in a test.
    settings = settings.model_copy(update={"accumulate": fitted.accumulate})
    advance(config.n_epochs - len(fitted.history))  # where patience ended
    with processes.first_alone():
        refitted = build().model if config.is_refit else None
    if refitted is not None:
        both = np.sort(np.concatenate([split.train, split.validation]))
        fit_on(refitted, Split(both, split.validation, split.test), settings, chooses=False)
    if not processes.is_first:
        return
    training = _record(config, this, model, split, fitted, time.monotonic() - started)
    if this.control:
        logits = predict_logits(refitted or model, inputs, split.test, settings.micro_batch_size, tell)
        write_json(record_of(config, this), {"training": training})
    else:
        evaluation = write_evaluation(config.out, this.name, model, inputs, examples, split, settings, refitted, tell)
        logits = evaluation.test_logits
        save_model(
            refitted or model,
            model_folder_of(config, this),
            config.max_text_tokens,
            training=training
            | {
                "temperature": evaluation.temperature,
                "fingerprint": examples.fingerprint,
                "commit": examples.commit,
                "described_by": examples.described_by,
            },
            frozen_backbones=config.out / "backbones" if config.is_frozen else None,
        )
    write_table(predictions_of(config, this), logits_table(examples, split.test, logits))
    shutil.rmtree(_checkpoints_of(config, this), ignore_errors=True)
    say(
        console,
        f"{this.name}: validation macro-F1 {fitted.best.validation_macro_f1:.3f} "
        f"in epoch {fitted.best.epoch} of {config.n_epochs}, {time.monotonic() - started:.1f} s",
    )


def _train_at_once(config: TrainConfig, pending: list[Run], advance: Callable[[int], None], console: Console) -> None:
    """`_train_one` for each of `pending`, in `config.n_jobs` processes that find the cache filled."""

    def hear(note: int | str) -> None:
        if isinstance(note, int):
            advance(note)
        else:
            say(console, note)

    runs = longest_first(pending, lambda each: each.model)
    at_once(runs, config.n_jobs, _begin_job, (config, {each.model for each in runs}), hear, lambda *_: None)


def _begin_job(config: TrainConfig, models: set[str]) -> Callable[[Run, Note], None]:
    """What a process of several does once: read the data; what it gives trains one run."""
    torch.set_num_threads(max(1, n_cores() // config.n_jobs))
    datasets.disable_progress_bars()
    examples, device = load_examples(config), device_of(config)
    parts = load_parts(config, examples, models, device, Console(quiet=True))

    def train(this: Run, note: Note) -> None:
        console = Console(file=_Lines(note))
        split = split_of(examples, this.protocol)
        _train_one(config, examples, split, this, parts, device, note, console, ALONE)

    return train


class _Lines(io.StringIO):
    """A file that hands on every line that is written to it."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self._note = note

    def write(self, text: str) -> int:
        if text:
            self._note(text.rstrip("\n"))
        return len(text)


def _project(
    config: TrainConfig, examples: Examples, split: Split, asked: list[Run], device: torch.device, console: Console
) -> None:
    """Write what the additive projection of each trained model in `asked` predicts of the test rows."""
    if not asked:
        return
    parts = load_parts(config, examples, {each.model for each in asked}, device, console)
    for each in asked:
        started = time.monotonic()
        folder = model_folder_of(config, Run(each.model, each.protocol, each.seed))
        model, trained = load_fusion_model(folder, needs_backbones=not config.features)
        accumulate = trained.training.get("accumulate", config.accumulate)  # more where memory did not do
        batch_size = config.model_copy(update={"accumulate": accumulate}).micro_batch_size
        reference = reference_rows(split.test, model.uses_tokens)

        def tell(message: str, name: str = each.name) -> None:
            say(console, f"{name}: {message}")

        with threads_for(model, parts.inputs, config, device):
            logits = emap_logits(model.to(device), parts.inputs, split.test, reference, batch_size, tell)
        seconds = round(time.monotonic() - started, 2)
        training = {**asdict(each), "n_test": len(split.test), "n_reference": len(reference), "seconds": seconds}
        write_json(record_of(config, each), {"training": training})
        write_table(predictions_of(config, each), logits_table(examples, split.test, logits))
        say(console, f"{each.name}: {len(split.test)} test rows, means over {len(reference)} of them, {seconds:.1f} s")


@contextmanager
def threads_for(model: FusionModel, inputs: Inputs, config: TrainConfig, device: torch.device) -> Generator[None]:
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
    """Write the resolved config, or check that the folder's experiment is the one that is asked for.

    Beside the settings: who described the images, and what a recipe assumes, also one that an earlier call named.
    """
    path = config.out / "config.json"
    resolved = {**config.model_dump(mode="json"), "epochs": config.n_epochs, "fingerprint": examples.fingerprint}
    assumptions = assumed(resolved)
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"{config.out} is a file, and an experiment is a folder", "choose another --out")
    if path.is_file() and (
        any((config.out / "predictions").glob("*.parquet")) or any((config.out / "checkpoints").rglob(FILE_NAME))
    ):  # else nothing was trained with it
        defaults = TrainConfig(dataset="", out=config.out).model_dump(mode="json")  # of settings that are newer than it
        before: dict[str, Any] = {**defaults, **read_json(path)}
        for key, value in resolved.items():
            is_new = key in MAY_COME and before.get(key) is None
            if key not in MAY_CHANGE and not is_new and before.get(key) != value:
                raise UserError(
                    f"{config.out} holds an experiment with another {key}: there {before.get(key)!r}, now {value!r}",
                    "choose another --out, or delete the folder to train everything again",
                )
        assumptions = assumptions or before.get("assumptions", assumed(before))
    elif not path.is_file() and config.out.is_dir() and any(config.out.iterdir()):
        raise UserError(f"{config.out} is not empty and holds no experiment", "choose another --out")
    write_json(path, {**resolved, "described_by": examples.described_by, "assumptions": assumptions})


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
        absent = np.setdiff1d(examples.labels[split.test], examples.labels[split.train])
        if len(absent):
            named = ", ".join(f"'{examples.class_names[label]}'" for label in absent)
            say(console, f"{protocol}: no train rows of {named}: test rows of it can only be wrong, and they count")
    if examples.n_without_text:
        say(console, f"{examples.n_without_text} rows have no description; their text is empty")


def _record(
    config: TrainConfig, this: Run, model: FusionModel, split: Split, fitted: Fitted, seconds: float
) -> dict[str, Any]:
    return {
        **asdict(this),
        "n_train": len(split.train),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "n_trained_parameters": fitted.n_trained,
        "n_fusion_parameters": model.fusion.n_parameters,
        "seconds": round(seconds, 2),
        "best": asdict(fitted.best),
        "history": [asdict(epoch) for epoch in fitted.history],
        "accumulate": fitted.accumulate,
        "config": _without_places(config.model_dump(mode="json")),
    }


def _checkpoints_of(config: TrainConfig, this: Run) -> Path:
    return config.out / "checkpoints" / this.name
