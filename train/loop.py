"""The training loop: plain PyTorch, top to bottom; everything random in it is a function of the seed."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.errors import UserError
from train.config import TrainConfig
from train.data import Rows, Split
from train.inputs import Inputs
from train.metrics import accuracy, macro_f1
from train.model import FusionModel, Scaling

_SCALING_ROWS = 2048  # enough rows of train to measure the features' scale on


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over train gave: mean loss there; loss, accuracy and macro-F1 on validation."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """The history of a fit and the epoch whose weights the model now holds."""

    history: tuple[Epoch, ...]
    best: Epoch


def fit(
    model: FusionModel,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    split: Split,
    config: TrainConfig,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    """Train `model` on the train rows and leave it with the weights of its best epoch on validation.

    Best is the highest macro-F1, of equals the lowest loss. Test rows are not looked at. With frozen backbones only
    the fusion is trained. Raises `UserError` when the loss stops being a number.
    """
    torch.manual_seed(seed)
    device = next(model.fusion.parameters()).device
    measure_scaling(model, inputs, split.train, config.batch_size)
    trained = _trained_part(model, config)
    optimizer = torch.optim.AdamW(_parameter_groups(model, config), weight_decay=config.weight_decay)
    n_steps = config.n_epochs * math.ceil(len(split.train) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, n_steps, config))
    history: list[Epoch] = []
    best, best_weights = None, None

    for epoch in range(config.n_epochs):
        trained.train()
        loss_sum = 0.0
        for rows in batches(split.train, config.batch_size, seed, epoch):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.is_bf16 and device.type == "cuda"):
                logits = model(inputs.features(model, rows, order=(seed, epoch)))
            targets = torch.from_numpy(labels[rows]).to(device)
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss of {model.name} became {loss.item()} in epoch {epoch + 1} (seed {seed}, lr {config.lr})",
                    "lower --lr, and --image-lr and --text-lr when fine-tuning",
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(rows)

        logits = predict_logits(model, inputs, split.validation, config.batch_size)
        expected, predicted = labels[split.validation], logits.argmax(axis=1)
        done = Epoch(
            epoch=epoch + 1,
            train_loss=loss_sum / len(split.train),
            validation_loss=float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(expected))),
            validation_accuracy=accuracy(expected, predicted),
            validation_macro_f1=macro_f1(expected, predicted),
        )
        history.append(done)
        if best is None or _rank(done) > _rank(best):
            best, best_weights = done, copy.deepcopy(trained.state_dict())
        on_epoch(done)

    assert best is not None
    assert best_weights is not None
    trained.load_state_dict(best_weights)
    model.eval()
    return Fitted(tuple(history), best)


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_macro_f1, -epoch.validation_loss


def batches(rows: Rows, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """`rows` in an order that is a function of (seed, epoch) alone, cut into batches; the last may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def lr_factor(step: int, n_steps: int, config: TrainConfig) -> float:
    """What a learning rate is multiplied with: linear warm-up to 1, then a cosine down to 0 after the last step."""
    n_warmup = config.warmup_fraction * n_steps
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1.0, n_steps - n_warmup))))


@torch.inference_mode()
def predict_logits(model: FusionModel, inputs: Inputs, rows: Rows, batch_size: int) -> npt.NDArray[np.float32]:
    """(len(rows), n_classes) logits, in the order of `rows`, without augmentation or dropout."""
    model.eval()
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return np.concatenate([model(inputs.features(model, part)).float().cpu().numpy() for part in parts])


@torch.inference_mode()
def measure_scaling(model: FusionModel, inputs: Inputs, train: Rows, batch_size: int) -> None:
    """Set the model's feature scaling to the mean and standard deviation over (at most 2,048 of) the train rows."""
    model.eval()
    rows = np.sort(np.random.default_rng(0).permutation(train)[:_SCALING_ROWS])
    sums: dict[str, list[Tensor]] = {}
    for start in range(0, len(rows), batch_size):
        features = inputs.features(model, rows[start : start + batch_size])
        has_text = features.text_mask.any(dim=1)
        for name, values in (
            ("image_tokens", features.image_tokens.flatten(0, 1)),
            ("image_pooled", features.image_pooled),
            ("text_tokens", features.text_tokens[features.text_mask]),
            ("text_pooled", features.text_pooled[has_text]),
        ):
            exact = values.double()
            moments = [torch.tensor(len(exact)), exact.sum(dim=0).cpu(), exact.square().sum(dim=0).cpu()]
            sums[name] = [old + new for old, new in zip(sums[name], moments, strict=True)] if name in sums else moments
    for name, (n_values, total, squares) in sums.items():
        scaling = model.scaling[name]
        assert isinstance(scaling, Scaling)
        if n_values < 2 or not len(total):
            continue  # a modality that is not there, or no description at all: stays the identity
        mean = total / n_values
        sd = (squares / n_values - mean.square()).clamp(min=0).sqrt()
        scaling.mean.copy_(mean)
        scaling.sd.copy_(torch.where(sd > 1e-6, sd, torch.ones_like(sd)))  # a constant dimension stays zero


def _trained_part(model: FusionModel, config: TrainConfig) -> nn.Module:
    """The module that the optimizer changes: the fusion alone, or the whole model."""
    model.requires_grad_(not config.is_frozen)
    model.fusion.requires_grad_(True)
    return model.fusion if config.is_frozen else model


def _parameter_groups(model: FusionModel, config: TrainConfig) -> list[dict[str, object]]:
    """One learning rate per part; no weight decay on vectors (biases, norms, scales)."""
    parts: list[tuple[nn.Module | None, float]] = [(model.fusion, config.lr)]
    if not config.is_frozen:
        parts += [(model.image, config.image_lr), (model.text, config.text_lr)]
    groups: list[dict[str, object]] = []
    for part, lr in parts:
        parameters = [] if part is None else [p for p in part.parameters() if p.requires_grad]
        groups.append({"params": [p for p in parameters if p.ndim >= 2], "lr": lr})
        groups.append({"params": [p for p in parameters if p.ndim < 2], "lr": lr, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
