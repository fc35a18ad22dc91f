"""Loops that take turns in one process, a few steps each, so that a busy machine is as busy for all."""

import time
from collections.abc import Callable
from statistics import median
from typing import cast

import numpy as np
import torch

from train.bench.bare import BareLoop, wait_for
from train.bench.shapes import CLASS_NAMES, Shape, learnable_data, random_backbones
from train.bench.trainer import TrainerLoop
from train.config import TrainConfig
from train.data import Rows, Split
from train.features import Features
from train.history import Epoch
from train.inputs import Inputs, LiveInputs
from train.loop import fit
from train.model import FusionModel
from train.texts import TokenisedTexts

FUSION = "attention_pooling"


class _Clocked:
    """Inputs that note how long the steps of an epoch take: from the first one's features to validation's."""

    def __init__(self, inputs: LiveInputs) -> None:
        self.inputs = inputs
        self.seconds: list[float] = []
        self.began_s: float | None = None

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        """The features of `rows`; only those of a step have an order."""
        if (order is None) != (self.began_s is None):
            wait_for(self.inputs.device)
            now_s = time.perf_counter()
            if self.began_s is None:
                self.began_s = now_s
            else:
                self.seconds.append(now_s - self.began_s)
                self.began_s = None
        return self.inputs.features(model, rows, order)


def ratio(numerator_s: list[float], denominator_s: list[float]) -> dict[str, float]:
    """Round by round, because the contenders of a round met the same machine; the median, and the extremes."""
    ratios = [one / other for one, other in zip(numerator_s, denominator_s, strict=True)]
    return {"median": median(ratios), "least": min(ratios), "greatest": max(ratios)}


def take_turns(shape: Shape, config: TrainConfig, device: torch.device, n_steps: int) -> dict[str, list[float]]:
    """Seconds of each round: the `n_steps` of our epochs, validation not counted, and after each the others' turns.

    There is a round for each epoch of `config`, and the first, which warms up, is not among the results. Rounds of few
    steps are better than long ones where the machine's speed varies from minute to minute.
    """
    n_train = n_steps * config.batch_size
    pixels, texts, labels, _ = learnable_data(shape, n_train + 1)
    full = TokenisedTexts(texts.token_ids, np.ones_like(texts.mask), 0)  # as long as those of the bare loop
    split = Split(np.arange(n_train), np.arange(n_train, n_train + 1), np.arange(0))
    inputs = LiveInputs(pixels, full, device, is_augmented=True)
    theirs = FusionModel(FUSION, CLASS_NAMES, *random_backbones(shape)).to(device)
    trainer = TrainerLoop(theirs, inputs, labels, split.train, config, 0)
    bare = {name: BareLoop(name, shape, config, device) for name in (FUSION, "image_only", "text_only")}
    turns: dict[str, Callable[[], float]] = {
        "bare": lambda: bare[FUSION].run(n_steps),
        "trainer": lambda: trainer.run(n_steps, n_warm_up=1),
        "image_only": lambda: bare["image_only"].run(n_steps),
        "text_only": lambda: bare["text_only"].run(n_steps),
    }
    clocked = _Clocked(inputs)
    seconds: dict[str, list[float]] = {"ours": clocked.seconds, **{name: [] for name in turns}}

    def others_turn(_: Epoch) -> None:
        for name, turn in turns.items():
            seconds[name].append(turn())

    ours = FusionModel(FUSION, CLASS_NAMES, *random_backbones(shape)).to(device)
    fit(ours, cast(Inputs, clocked), labels, split, config, 0, others_turn)
    return {name: values[1:] for name, values in seconds.items()}
