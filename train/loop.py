"""The training loop: plain PyTorch, top to bottom; everything random in it is a function of the seed."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.errors import UserError
from train.checkpoint import Checkpoints, State, key_of
from train.config import TrainConfig
from train.data import Rows, Split
from train.ema import Average
from train.history import Epoch, Fitted, best_of, is_exhausted
from train.imbalance import Objective
from train.inputs import Inputs
from train.memory import Tell, in_batches, untold
from train.metrics import accuracy, macro_f1
from train.model import FusionModel
from train.optimizer import lr_factor, make_optimizer, set_learning_rates
from train.processes import ALONE, Processes
from train.scaling import measure_scaling
from train.step import backward
from train.trained import choose_trained, compile_trained, merge_adapters, set_training, trained_weights

__all__ = ["Epoch", "Fitted", "batches", "fit", "lr_factor", "measure_scaling", "predict_logits"]

_STEPS_BETWEEN_CHECKS = 100  # of the loss: reading it makes the host wait for the device


def fit(
    model: FusionModel,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    split: Split,
    config: TrainConfig,
    seed: int,
    on_epoch: Callable[[Epoch], None],
    checkpoints: Path | None = None,
    fingerprint: str = "",
    processes: Processes = ALONE,
    tell: Tell = untold,
    chooses: bool = True,
) -> Fitted:
    """Train `model` on the train rows and leave it with the weights of its best epoch on validation.

    Best is the highest macro-F1, of equals the lowest loss. Test rows are not looked at. With frozen backbones only
    the fusion is trained. `checkpoints` is a folder: what a killed call left there is continued, with the same bits on
    a CPU; `fingerprint` names the data that it belongs to. `tell` is called with what a person should know. Where it
    does not choose, the weights are those at the end of the schedule. Raises `UserError` when the loss stops being a
    number, when a single row does not fit in memory, and on a checkpoint of other data or settings.
    """
    torch.manual_seed(seed)
    device = next(model.fusion.parameters()).device
    choose_trained(model, config)
    if config.is_compiled:
        compile_trained(model)
    weights = trained_weights(model)
    optimizer = make_optimizer(model, config)
    average = Average(weights, config.ema)
    objective = Objective(labels, split.train, len(model.class_names), config)
    state = State(torch.zeros((), dtype=torch.float64, device=device), config.accumulate)
    key = key_of(model.name, weights, labels, split, config, seed, fingerprint)
    saved = Checkpoints(checkpoints, key, config.checkpoint_every_s)
    if not saved.restore(state, weights, optimizer, average):
        measure_scaling(model, inputs, split.train, config.micro_batch_size, tell)
        processes.as_in_first(weights.values())
    n_steps = math.ceil(len(split.train) / config.batch_size)  # of an epoch
    parameters = [weight for weight in weights.values() if isinstance(weight, nn.Parameter)]

    patience = config.patience if chooses else None
    while state.epoch < config.n_epochs and not is_exhausted(state.history, patience):
        set_training(model)
        order = batches(objective.rows(seed, state.epoch), config.batch_size, seed, state.epoch)
        for rows in order[state.step :]:
            set_learning_rates(optimizer, state.epoch * n_steps + state.step, config.n_epochs * n_steps, config)
            loss = backward(model, inputs, objective, rows, config, seed, state, processes, tell)
            processes.sum_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            average.update()
            state.loss_sum += processes.sum(loss) * len(rows)
            state.step += 1
            if state.step % _STEPS_BETWEEN_CHECKS == 0 or state.step == len(order) or saved.is_due():
                _check(state.loss_sum, model.name, state.epoch, seed, config)
                if saved.is_due() and processes.is_first and state.step < len(order):
                    saved.write(state, weights, optimizer, average)

        with average.applied():
            done = _validate(model, inputs, labels, split, config, state, processes, tell)
            state.history.append(done)
            if not chooses or done == best_of(state.history):
                state.best_weights = {name: weight.detach().clone() for name, weight in weights.items()}
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum.zero_()
        if processes.is_first and (saved.is_due() or not config.is_frozen):  # frozen heads take seconds
            saved.write(state, weights, optimizer, average)
        on_epoch(done)

    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state.best_weights[name])
    merge_adapters(model)
    model.eval()
    best = best_of(state.history) if chooses else state.history[-1]
    return Fitted(tuple(state.history), best, sum(p.numel() for p in parameters), state.accumulate)


def batches(rows: Rows, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """`rows` in an order that is a function of (seed, epoch) alone, cut into batches; the last may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _check(loss_sum: Tensor, name: str, epoch: int, seed: int, config: TrainConfig) -> None:
    if not torch.isfinite(loss_sum):
        raise UserError(
            f"the loss of {name} became {loss_sum.item()} in epoch {epoch + 1} (seed {seed}, lr {config.lr})",
            "lower --lr, and --image-lr and --text-lr when fine-tuning",
        )


def _validate(
    model: FusionModel,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    split: Split,
    config: TrainConfig,
    state: State,
    processes: Processes,
    tell: Tell,
) -> Epoch:
    """The epoch that ends now: its mean loss on train, and what the model does on the validation rows."""
    mine = processes.share(split.validation)
    batch_size = math.ceil(config.batch_size / state.accumulate)
    logits = processes.join(predict_logits(model, inputs, mine, batch_size, tell))
    expected, predicted = labels[split.validation], logits.argmax(axis=1)
    return Epoch(
        epoch=state.epoch + 1,
        train_loss=float(state.loss_sum) / len(split.train),
        validation_loss=float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(expected))),
        validation_accuracy=accuracy(expected, predicted),
        validation_macro_f1=macro_f1(expected, predicted),
    )


@torch.inference_mode()
def predict_logits(
    model: FusionModel, inputs: Inputs, rows: Rows, batch_size: int, tell: Tell = untold
) -> npt.NDArray[np.float32]:
    """(len(rows), n_classes) logits, in the order of `rows`, without augmentation or dropout.

    Batches that do not fit in memory are halved, and `tell` is called with that. Raises `UserError` where one row does
    not fit.
    """
    model.eval()

    def logits_of(part: slice) -> npt.NDArray[np.float32]:
        return model(inputs.features(model, rows[part])).float().cpu().numpy()

    logits = [found for _, found in in_batches(len(rows), batch_size, logits_of, "prediction", tell)]
    return np.concatenate([np.empty((0, len(model.class_names)), dtype=np.float32), *logits])
