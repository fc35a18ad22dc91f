"""Loops that take turns in one process, a few steps each, so that a busy machine is as busy for all."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any, cast

import numpy as np
import torch

from train.bench.bare import BareLoop, wait_for
from train.bench.shapes import CLASS_NAMES, Shape, learnable_data, random_backbones
from train.bench.trainer import N_READ_AHEAD, TrainerLoop
from train.config import TrainConfig
from train.data import Rows, Split
from train.features import Features
from train.history import Epoch
from train.inputs import Inputs, LiveInputs
from train.loop import fit
from train.model import FusionModel
from train.statistics.interval import median_interval
from train.texts import TokenisedTexts

FUSION = "attention_pooling"
N_WARM_UP = 1  # steps of each turn before its clock starts: the turn before has used the caches and the memory


class _Clocked:
    """Inputs that note how long the steps of an epoch take: from the features of the first that is timed, which
    `N_WARM_UP` others precede, to those of validation."""

    def __init__(self, inputs: LiveInputs) -> None:
        self.inputs = inputs
        self.seconds: list[float] = []
        self.began_s = 0.0
        self.n_begun = 0  # steps of this epoch

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        """The features of `rows`; only those of a step have an order."""
        if order is None and self.n_begun:
            self.seconds.append(self._now_s() - self.began_s)
            self.n_begun = 0
        elif order is not None:
            if self.n_begun == N_WARM_UP:
                self.began_s = self._now_s()
            self.n_begun += 1
        return self.inputs.features(model, rows, order)

    def _now_s(self) -> float:
        wait_for(self.inputs.device)
        return time.perf_counter()


def ratio(numerator_s: list[float], denominator_s: list[float]) -> dict[str, Any]:
    """Round by round, because the contenders of a round met the same machine.

    The median of the rounds' ratios, its 95 % interval [low, high] (None for fewer than six rounds), and the extremes.
    """
    ratios = [one / other for one, other in zip(numerator_s, denominator_s, strict=True)]
    interval = median_interval(ratios)
    return {
        "median": median(ratios),
        "interval": None if interval is None else [interval.low, interval.high],
        "least": min(ratios),
        "greatest": max(ratios),
    }


def take_turns(shape: Shape, config: TrainConfig, device: torch.device, n_steps: int) -> dict[str, list[float]]:
    """Seconds of each round: the `n_steps` of our epochs, validation not counted, and after each the others' turns.

    There is a round for each epoch of `config`, and the first, which warms up, is not among the results. Rounds of few
    steps are better than long ones where the machine's speed varies from minute to minute. The others' order is another
    in each round, so that nobody always has the caches of the same one before it.
    """
    n_train = (N_WARM_UP + n_steps) * config.batch_size
    theirs_too = np.arange(n_train + N_READ_AHEAD * config.batch_size)
    pixels, texts, labels, _ = learnable_data(shape, len(theirs_too))
    full = TokenisedTexts(texts.token_ids, np.ones_like(texts.mask), 0)  # as long as those of the bare loop
    split = Split(np.arange(n_train), np.arange(n_train, n_train + 1), np.arange(0))
    inputs = LiveInputs(pixels, full, device, is_augmented=True)
    theirs = FusionModel(FUSION, CLASS_NAMES, *random_backbones(shape)).to(device)
    trainer = TrainerLoop(theirs, inputs, labels, theirs_too, config, 0)
    bare = {name: BareLoop(name, shape, config, device) for name in (FUSION, "image_only", "text_only")}
    turns: dict[str, Callable[[], float]] = {
        "bare": lambda: bare[FUSION].run(n_steps, N_WARM_UP),
        "trainer": lambda: trainer.run(n_steps, N_WARM_UP, n_behind=1),
        "image_only": lambda: bare["image_only"].run(n_steps, N_WARM_UP),
        "text_only": lambda: bare["text_only"].run(n_steps, N_WARM_UP),
    }
    clocked = _Clocked(inputs)
    seconds: dict[str, list[float]] = {"ours": clocked.seconds, **{name: [] for name in turns}}

    def others_turn(done: Epoch) -> None:
        for name in np.random.default_rng(done.epoch).permutation(list(turns)):
            seconds[name].append(turns[name]())

    ours = FusionModel(FUSION, CLASS_NAMES, *random_backbones(shape)).to(device)
    fit(ours, cast(Inputs, clocked), labels, split, config, 0, others_turn)
    return {name: values[1:] for name, values in seconds.items()}
