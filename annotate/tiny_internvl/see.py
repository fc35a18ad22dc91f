"""First half of the training: the vision tower and the projector learn to see the attributes.

Eight linear heads read each attribute from the mean of the image tokens, a ninth reads from each patch how much of
its quarters is lesion; all are dropped afterwards. A tower learns this several times sooner from attributes and places
than from notes, and the language model then finds the attributes ready.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotate.tiny_internvl.photographs import Photographs
from builders.sample.attributes import ATTRIBUTE_NAMES

_BATCH = 32
_QUARTERS = 2  # a patch is asked for its lesion cover in 2 x 2 parts
_PLACE_WEIGHT = 4.0
_SHAPE = ATTRIBUTE_NAMES.index("shape")
_PEAK_LR = {"matrices": 3e-3, "others": 1.5e-3}


class Heads(nn.Module):
    """A linear classifier per attribute on the mean of the image tokens, and one of places on each patch."""

    def __init__(self, width: int, n_values: list[int]) -> None:
        super().__init__()
        self.attributes = nn.ModuleList(nn.Linear(width, n) for n in n_values)
        self.place = nn.Linear(width, _QUARTERS**2)

    def forward(self, patches: Tensor, image_tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits per attribute, each (batch, values), and of lesion cover, (batch, 2 * rows, 2 * columns).

        Of patches (batch, 1 + rows * columns, width), a class token first, and image tokens (batch, tokens, width).
        """
        mean = image_tokens.mean(dim=1)  # (batch, width)
        side = math.isqrt(patches.shape[1] - 1)
        places = self.place(patches[:, 1:]).transpose(1, 2).unflatten(2, (side, side))  # (batch, 4, rows, columns)
        return [head(mean) for head in self.attributes], F.pixel_shuffle(places, _QUARTERS)[:, 0]


def learn_to_see(
    model: Any,  # InternVLForConditionalGeneration, whose stubs do not know its parts
    photographs: Photographs,
    n_steps: int,
    generator: torch.Generator,
) -> None:
    """Train the vision tower and the projector in place; prints a line per 100 steps."""
    heads = Heads(model.config.text_config.hidden_size, photographs.n_values)
    weights = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    learned = [*weights, *heads.parameters()]
    optimizers = make_optimizers([w for w in learned if w.ndim == 2], [w for w in learned if w.ndim != 2])
    started = time.monotonic()
    model.train()
    for step, rows in enumerate(batches(len(photographs), _BATCH, n_steps, generator)):
        set_lr(optimizers, step, n_steps)
        cover = photographs.cover[rows, None].float() / 255
        pixels, cover = turn_and_mirror([photographs.pixel_values(rows), cover], generator)
        values = photographs.values[rows]  # (batch, attributes)
        seen = model.model.get_image_features(pixel_values=pixels)
        logits, places = heads(seen.last_hidden_state, seen.pooler_output)
        losses = [F.cross_entropy(x, values[:, i]) for i, x in enumerate(logits)]
        loss = torch.stack(losses).sum() + losses[_SHAPE]  # shape comes last of all: it counts twice
        true_places = F.adaptive_avg_pool2d(cover, places.shape[-2:])[:, 0]
        loss = loss + _PLACE_WEIGHT * F.binary_cross_entropy_with_logits(places, true_places)
        descend(optimizers, loss, weights)
        if (step + 1) % 100 == 0:
            right = torch.stack([x.argmax(1) == values[:, i] for i, x in enumerate(logits)], dim=1).float().mean()
            seconds = time.monotonic() - started
            print(
                f"see {step + 1}/{n_steps}: loss {loss.item():.3f}, right {right.item():.3f}, {seconds:.0f} s",
                flush=True,
            )


def batches(n_rows: int, batch: int, n_steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of `n_steps` batches; every row once before any row again."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(n_steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(n_rows, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def make_optimizers(matrices: list[nn.Parameter], others: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for all else: on this model they need about half the steps that AdamW alone needs.

    Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon/
    """
    return [
        torch.optim.Muon(matrices, lr=_PEAK_LR["matrices"], weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=_PEAK_LR["others"], weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def set_lr(optimizers: list[torch.optim.Optimizer], step: int, n_steps: int) -> None:
    """Linear warm-up over the first twentieth, then a cosine to zero."""
    warm_up = max(1, n_steps // 20)
    done = (step - warm_up) / max(1, n_steps - warm_up)
    share = (step + 1) / warm_up if step < warm_up else 0.5 * (1 + math.cos(math.pi * done))
    for optimizer, peak in zip(optimizers, _PEAK_LR.values(), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * share


def descend(optimizers: list[torch.optim.Optimizer], loss: Tensor, weights: list[nn.Parameter]) -> None:
    """One step of every optimizer down the gradient of `loss`, cut to length 1."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in optimizers:
        optimizer.step()


def turn_and_mirror(pictures: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """One of the square's eight symmetries for a whole batch: none changes an attribute."""
    mirror, flip, turn = torch.randint(2, (3,), generator=generator).tolist()
    if mirror:
        pictures = [picture.flip(3) for picture in pictures]
    if flip:
        pictures = [picture.flip(2) for picture in pictures]
    return [(picture.transpose(2, 3) if turn else picture).contiguous() for picture in pictures]
