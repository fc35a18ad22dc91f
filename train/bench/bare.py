"""What a step must cost: forward, backward and AdamW on random tensors that stay where they are, and nothing else."""

import time

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from train.bench.shapes import CLASS_NAMES, Shape, random_backbones
from train.config import TrainConfig
from train.model import FusionModel
from train.optimizer import make_optimizer
from train.trained import compile_trained


class BareLoop:
    """A model of one fusion and one batch for it; `run` takes steps on that batch."""

    def __init__(self, fusion: str, shape: Shape, config: TrainConfig, device: torch.device) -> None:
        self.device = device
        self.is_bf16 = config.is_bf16
        self.model = FusionModel(fusion, CLASS_NAMES, *random_backbones(shape)).to(device).train()
        if config.is_compiled:
            compile_trained(self.model)
        self.optimizer = make_optimizer(self.model, config)
        size, side_px = config.batch_size, shape.image_px
        self.pixels = torch.randint(0, 256, (size, side_px, side_px, 3), dtype=torch.uint8, device=device)
        self.token_ids = torch.randint(0, shape.vocabulary, (size, shape.n_text_tokens), device=device)
        self.mask = torch.ones_like(self.token_ids, dtype=torch.bool)
        self.targets = torch.randint(0, len(CLASS_NAMES), (size,), device=device)

    def run(self, n_steps: int, n_warm_up: int = 0) -> float:
        """Seconds for `n_steps`, behind `n_warm_up` others."""
        started = 0.0
        for step in range(n_warm_up + n_steps):
            if step == n_warm_up:
                wait_for(self.device)
                started = time.perf_counter()
            self.optimizer.zero_grad()
            self._backward()
            self.optimizer.step()
        wait_for(self.device)
        return time.perf_counter() - started

    def flops(self) -> int:
        """Floating-point operations of one step's forward and backward, multiplications and additions counted."""
        with FlopCounterMode(display=False) as counter:
            self._backward()
        self.optimizer.zero_grad()
        return counter.get_total_flops()

    def _backward(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
            logits = self.model(self.model.encode(self.pixels, self.token_ids, self.mask, len(self.targets)))
        F.cross_entropy(logits.float(), self.targets).backward()


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
