"""One run of an experiment: fitted, tested once, and written, its predictions last."""

import copy
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from builders.files import write_json, write_table
from train.checkpoint import FILE_NAME
from train.config import TrainConfig
from train.controls import CONTROLS
from train.controls.setting import Controlled, Setting
from train.data import Examples, Split
from train.device import threads_for
from train.evaluate import logits_table, write_evaluation
from train.heads_first import then_all, train_heads_first
from train.loop import Fitted, fit, predict_logits
from train.matrix import Run, model_folder_of, predictions_of, record_of
from train.model import FusionModel, save_model
from train.parts import Parts
from train.processes import Processes
from train.progress import say

_REFIT = "refit"  # below a run's checkpoints: those of its second fit


def train_one(
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
        folder = _checkpoints_of(config, this) / ("" if chooses else _REFIT)
        if settings.head_epochs:
            if not processes.told_by_first((folder / FILE_NAME).is_file()):  # else what comes after is under way
                train_heads_first(
                    model, inputs, examples.labels, rows, settings, this.seed, folder, processes, tell, chooses
                )
            settings = then_all(model, settings)
        with threads_for(model, parts.inputs, config, device):
            return fit(
                model,
                inputs,
                examples.labels,
                rows,
                settings,
                this.seed,
                on_epoch=lambda _: advance(int(chooses)),
                checkpoints=folder,
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


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    """Absolute paths cut to their last part, in lists too: model folders are passed on."""
    return {
        name: [_without_place(each) for each in value] if isinstance(value, list) else _without_place(value)
        for name, value in values.items()
    }


def _without_place(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
