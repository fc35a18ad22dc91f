"""The gradients of one batch: in parts where memory is short, shared where there are several processes."""

import math

import numpy as np
import torch
from torch import Tensor

from builders.errors import UserError
from train.chance import seed_of
from train.checkpoint import State
from train.config import TrainConfig
from train.data import Rows
from train.imbalance import Objective
from train.inputs import Inputs
from train.memory import Tell, is_out_of_memory
from train.missing import drop_modalities
from train.model import FusionModel
from train.processes import Processes


def backward(
    model: FusionModel,
    inputs: Inputs,
    objective: Objective,
    rows: Rows,
    config: TrainConfig,
    seed: int,
    state: State,
    processes: Processes,
    tell: Tell,
) -> Tensor:
    """Add up the gradients of this process's share of a batch, in `state.accumulate` parts; its part of the mean loss.

    Where the device's memory does not do, the batch is begun again in twice as many parts, and so are those to come.
    """
    device = state.loss_sum.device
    mine = processes.share(rows)
    # A process without a row (the last batch may be that small) takes part with gradients of zero.
    divisor = objective.weight(rows) if len(mine) else math.inf
    while True:
        loss_sum = torch.zeros((), device=device)
        try:
            for number, part in enumerate(parts_of(mine if len(mine) else rows[:1], state.accumulate)):
                _seed_dropout(seed_of(seed, state.epoch, state.step, number, processes.number), device)
                with torch.autocast(device.type, torch.bfloat16, enabled=config.is_bf16):
                    features = inputs.features(model, part, order=(seed, state.epoch))
                    features = drop_modalities(model, features, part, config.modality_dropout, seed, state.epoch)
                    logits = model(features)
                loss = objective.loss(logits, part, divisor)
                loss.backward()
                loss_sum += loss.detach()
            return loss_sum
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            _halve(len(mine), config, state, processes, error, tell)
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _seed_dropout(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed`, which formats a traceback for every kind of device: 0.3 ms, a third of a head's step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def parts_of(rows: Rows, n_parts: int) -> list[Rows]:
    """`rows` cut into at most `n_parts` parts of (almost) one size, none of them empty."""
    return [part for part in np.array_split(rows, n_parts) if len(part)]


def _halve(
    n_rows: int,
    config: TrainConfig,
    state: State,
    processes: Processes,
    error: RuntimeError,
    tell: Tell,
) -> None:
    """Double the number of parts, and say so; `UserError` where that cannot help."""
    before = math.ceil(n_rows / state.accumulate)
    if before <= 1:
        raise UserError(
            "one row at a time does not fit in the device's memory",
            "choose smaller backbones, train fewer blocks (--image-layers, --text-layers), or use --frozen",
        ) from error
    if processes.n > 1:  # the others are about to add up their gradients, and cannot be told
        raise UserError(
            f"{before} rows at a time do not fit in the device's memory", f"--accumulate {2 * state.accumulate}"
        ) from error
    state.accumulate *= 2
    tell(
        f"{before} rows at a time do not fit in the device's memory: a batch of {config.batch_size} is now computed in "
        f"{state.accumulate} parts of up to {math.ceil(n_rows / state.accumulate)}; the batch stays the same "
        f"(--accumulate {state.accumulate} begins so)"
    )
