"""Where a fit is, in one safetensors file: written whole or not at all, and read back to the last bit."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from builders.errors import UserError
from builders.files import write_atomic
from train.config import TrainConfig
from train.data import Split
from train.ema import Average
from train.history import Epoch

FILE_NAME = "checkpoint.safetensors"
# What may differ when a fit is continued: the matrix, paths, names in a table, the device, how a batch is computed; and
# revisions, because the data's fingerprint and the encoders' weights tell whether they are others.
MAY_CHANGE = (
    "dataset",
    "revision",
    "image_revision",
    "text_revision",
    "out",
    "images",
    "models",
    "controls",
    "control_models",
    "recipe",
    "recipe_overrides",
    "n_seeds",
    "protocol",
    "device",
    "n_jobs",
    "accumulate",
    "checkpoint_every_s",
    "image_features_of",
    "text_features_of",
)
# What may also be named later, once, when a control asks for it. No fit under way knows it.
MAY_COME = ("second_image_backbone", "second_image_revision")


@dataclass(slots=True)
class State:
    """What changes while a fit goes on, beside the weights.

    `step` steps of `epoch` (from 0) are done; `loss_sum` adds up the losses of its rows, on the device. `best_weights`
    are those of the best epoch in `history`. A batch is computed in `accumulate` parts. No state of a random number
    generator: order, augmentation and dropout are functions of the seed and of where the fit is.
    """

    loss_sum: Tensor
    accumulate: int
    epoch: int = 0
    step: int = 0
    history: list[Epoch] = field(default_factory=list[Epoch])
    best_weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Checkpoints:
    """The checkpoint of one fit: due every so often, refused when it belongs to other data or settings."""

    def __init__(self, folder: Path | None, key: str, every_s: float) -> None:
        self.path = None if folder is None else folder / FILE_NAME
        self.key = key
        self.every_s = every_s
        self.written_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether `every_s` seconds have passed since the last one, or since the start."""
        return self.path is not None and time.monotonic() - self.written_at >= self.every_s

    def write(
        self, state: State, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, average: Average
    ) -> None:
        """Replace the checkpoint by the present; a kill at any moment leaves the old one or the new one."""
        if self.path is None:
            return
        names = {id(weight): name for name, weight in weights.items()}
        tensors = {f"weights/{name}": weight for name, weight in weights.items()}
        tensors |= {f"average/{name}": weight for name, weight in average.averages.items()}
        tensors |= {f"best/{name}": weight for name, weight in state.best_weights.items()}
        for parameter, values in optimizer.state.items():
            tensors |= {f"optimizer/{key}/{names[id(parameter)]}": value for key, value in values.items()}
        tensors["loss_sum"] = state.loss_sum
        scalars = {
            "key": self.key,
            "epoch": state.epoch,
            "step": state.step,
            "accumulate": state.accumulate,
            "n_averaged": average.n_steps,
            "history": [asdict(epoch) for epoch in state.history],
        }
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_atomic(self.path, lambda part: save_file(whole, part, metadata={"state": json.dumps(scalars)}))
        self.written_at = time.monotonic()

    @torch.no_grad()
    def restore(
        self, state: State, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, average: Average
    ) -> bool:
        """Put everything back as it was written; False where nothing is there to put back.

        Raises `UserError` where the checkpoint is damaged or was written with other data or settings.
        """
        if self.path is None or not self.path.is_file():
            return False
        scalars, tensors = self._read(self.path)
        if scalars["key"] != self.key:
            raise UserError(
                f"the checkpoint {self.path} belongs to other data or settings than are given now",
                f"give those that it was begun with, or delete {self.path.parent} to begin this run again",
            )
        for prefix, targets in (("weights", weights), ("average", average.averages)):
            for name, target in targets.items():
                target.copy_(tensors[f"{prefix}/{name}"])
        _restore_optimizer(optimizer, weights, tensors)
        average.n_steps = scalars["n_averaged"]
        state.epoch, state.step = scalars["epoch"], scalars["step"]
        state.accumulate = max(state.accumulate, scalars["accumulate"])  # what did not fit will not fit now
        state.history = [Epoch(**epoch) for epoch in scalars["history"]]
        state.loss_sum.copy_(tensors["loss_sum"])
        device = state.loss_sum.device
        state.best_weights = {
            name.removeprefix("best/"): tensor.to(device)
            for name, tensor in tensors.items()
            if name.startswith("best/")
        }
        return True

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(path, framework="pt") as file:
                scalars = json.loads(file.metadata()["state"])
                return scalars, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {path} is damaged: {error}", f"delete {path.parent} to begin this run again"
            ) from error


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, weights: dict[str, Tensor], tensors: dict[str, Tensor]
) -> None:
    names = {id(weight): name for name, weight in weights.items()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    restored: dict[int, dict[str, Tensor]] = {}
    for position, name in enumerate(ordered):
        ending = f"/{name}"
        found = {
            key.removeprefix("optimizer/").removesuffix(ending): tensor
            for key, tensor in tensors.items()
            if key.startswith("optimizer/") and key.split("/", 2)[2] == name
        }
        if found:  # a weight without a gradient (an unused pooler) has no state
            restored[position] = found
    optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})


def key_of(
    name: str,
    weights: dict[str, Tensor],
    labels: npt.NDArray[np.int64],
    split: Split,
    config: TrainConfig,
    seed: int,
    fingerprint: str,
) -> str:
    """Hex sha256 over all that a fit depends on: another one means that a checkpoint is of another fit.

    What an experiment lets change between two calls is not in it, so that a fit that was stopped then goes on.
    """
    settings = config.model_dump(mode="json", exclude={*MAY_CHANGE, *MAY_COME}) | {"epochs": config.n_epochs}
    shapes = {key: list(weight.shape) for key, weight in weights.items()}
    digest = hashlib.sha256(json.dumps([name, seed, fingerprint, settings, shapes], sort_keys=True).encode())
    for rows in (labels[split.train], labels[split.validation], split.train, split.validation):
        digest.update(rows.tobytes())
    return digest.hexdigest()
