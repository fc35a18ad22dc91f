"""An exponential moving average of the trained weights: what is validated, kept and saved where it is asked for."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """`average = d * average + (1 - d) * weight` after each step; with a decay of 0 it is the weights themselves.

    `d` is at most `(1 + n) / (10 + n)` after n steps, so that the random first weights are forgotten in short runs.
    Polyak and Juditsky 1992, https://doi.org/10.1137/0330046; the ramp is TensorFlow's.
    """

    def __init__(self, weights: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.weights = {name: w for name, w in weights.items() if isinstance(w, nn.Parameter)} if decay else {}
        self.averages = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.n_steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if not self.weights:
            return
        self.n_steps += 1
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        averages, weights = list(self.averages.values()), list[Tensor](self.weights.values())
        get_ema_multi_avg_fn(decay)(averages, weights, self.n_steps)

    @contextmanager
    def applied(self) -> Generator[None]:
        """The model with the averages in place of its weights, for as long as it lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(kept)
