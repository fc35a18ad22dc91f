"""AdamW with one learning rate per part of the model, and the schedule, a function of the step alone."""

import math

import torch
from torch import nn

from train.config import TrainConfig
from train.model import FusionModel


def make_optimizer(model: FusionModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what is trained: `peak_lr` per part, no weight decay on vectors (biases, norms, scales)."""
    parts: list[tuple[nn.Module | None, float]] = [
        (model.fusion, config.lr),
        (model.image, config.image_lr),
        (model.text, config.text_lr),
    ]
    groups: list[dict[str, object]] = []
    for part, lr in parts:
        parameters = [] if part is None else [p for p in part.parameters() if p.requires_grad]
        matrices, vectors = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
        groups.append({"params": matrices, "lr": lr, "peak_lr": lr, "weight_decay": config.weight_decay})
        groups.append({"params": vectors, "lr": lr, "peak_lr": lr, "weight_decay": 0.0})
    is_fused = next(model.fusion.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=is_fused)


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, n_steps: int, config: TrainConfig) -> None:
    """Before step number `step` (from 0) of `n_steps`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * lr_factor(step, n_steps, config)


def lr_factor(step: int, n_steps: int, config: TrainConfig) -> float:
    """What a learning rate is multiplied with: linear warm-up to 1, then a cosine down to 0 after the last step."""
    n_warmup = config.warmup_fraction * n_steps
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1.0, n_steps - n_warmup))))
