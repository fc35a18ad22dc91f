"""Where a fusion that pools by attention looks: patches of the image, words of the text, and whether it matters.

A weight explains nothing by itself. So the heaviest tokens are deleted from what the fusion reads, the probability of
the true class is read again, and the same number of random tokens is the yardstick.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.backbones import ImageBackbone
from train.features import Features
from train.model import FusionModel
from train.word_spans import WordSpans

PERCENTS = (5, 10, 20, 40)  # of the patches or words that are deleted
N_DRAWS = 5  # of random patches or words, averaged per image


def pools_by_attention(model: FusionModel) -> bool:
    """Whether the fusion tells how much each token counts."""
    return callable(getattr(model.fusion, "attention", None))


def attention_of(model: FusionModel, features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (batch, n_classes) and the weights of image (batch, n_image) and text tokens (batch, n_text).

    The fusion is asked about the very features that it was given for the logits, whatever is done to them before.
    """
    given: list[Any] = []
    watch = model.fusion.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    try:
        logits = model(features)
    finally:
        watch.remove()
    fusion: Any = model.fusion
    image, text = fusion.attention(*given[0])
    return logits, image, text


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """How an image's tokens lie on it: `n_before` (class token, registers), then `rows` × `columns`, row by row."""

    n_before: int
    rows: int
    columns: int


def patch_grid(backbone: ImageBackbone, n_tokens: int, size_px: tuple[int, int] | None = None) -> PatchGrid | None:
    """Where tokens lie, from the backbone's patch size or, of a convolution, from their number; None if unknown.

    `size_px`, (height, width), is that of the pixels where it is not the checkpoint's own.
    """
    height_px, width_px = size_px or backbone.pixels.crop_px
    patch: Any = getattr(getattr(backbone.model, "config", None), "patch_size", None)
    patch_height, patch_width = patch if isinstance(patch, list | tuple) else (patch, patch)
    if isinstance(patch_height, int) and isinstance(patch_width, int) and patch_height and patch_width:
        rows, columns = height_px // patch_height, width_px // patch_width
        if rows * columns <= n_tokens <= rows * columns + 16:
            return PatchGrid(n_tokens - rows * columns, rows, columns)
    rows = round(math.sqrt(n_tokens * height_px / width_px))
    return PatchGrid(0, rows, n_tokens // rows) if rows and n_tokens % rows == 0 else None


@dataclass(frozen=True, slots=True)
class Deletion:
    """The true class's probability of one row: as it is, and without `percent` of its patches or words.

    `without_top` lacks the heaviest, `without_random` as many random ones (the mean over N_DRAWS draws).
    """

    modality: str
    percent: int
    before: float
    without_top: float
    without_random: float


@torch.inference_mode()
def deletion_test(
    model: FusionModel,
    features: Features,
    label: int,
    row: int,
    seed: int,
    grid: PatchGrid | None,
    words: WordSpans | None,
) -> list[Deletion]:
    """Delete patches and words from one row's tokens. `features` hold that row alone, as `model.encode` gives it.

    What is deleted at random is a function of (`seed`, `row`).

    Patches and words only: class tokens and `[SEP]` stay. Tokens go after the backbone, so what others took over from
    them in its layers stays too: the test is of the pooling, not of the backbone.
    """
    logits, image_weights, text_weights = attention_of(model, features)
    before = _probability(logits, label)[0]
    rng = np.random.default_rng([seed, row])  # other random tokens for each image
    tests: list[Deletion] = []
    if grid is not None and image_weights.shape[1]:
        weights = image_weights[0, grid.n_before :].float().cpu().numpy()
        units = [np.asarray([grid.n_before + i]) for i in range(len(weights))]
        tests += _delete(model, features, label, "image", weights, units, before, rng)
    if words is not None and words.n_read:
        per_word, _ = words.per_word(text_weights[0].float().cpu().numpy())
        of_token = np.asarray(words.word_of_token)
        units = [np.flatnonzero(of_token == i) for i in range(words.n_read)]
        read = [i for i in range(words.n_read) if len(units[i])]
        tests += _delete(
            model, features, label, "text", np.asarray(per_word)[read], [units[i] for i in read], before, rng
        )
    return tests


def _delete(
    model: FusionModel,
    features: Features,
    label: int,
    modality: str,
    weights: npt.NDArray[Any],
    units: list[npt.NDArray[np.int64]],
    before: float,
    rng: np.random.Generator,
) -> list[Deletion]:
    heaviest = np.argsort(-weights, kind="stable")
    draws = [rng.permutation(len(units)) for _ in range(N_DRAWS)]
    tests: list[Deletion] = []
    for percent in PERCENTS:
        n_deleted = min(len(units) - 1, max(1, round(percent / 100 * len(units))))  # something always stays
        if n_deleted < 1:
            continue
        gone = [np.concatenate([units[i] for i in order[:n_deleted]]) for order in (heaviest, *draws)]
        top, *random = _probability(_without(model, features, modality, gone), label)
        tests.append(Deletion(modality, percent, before, top, float(np.mean(random))))
    return tests


def _without(model: FusionModel, features: Features, modality: str, gone: list[npt.NDArray[np.int64]]) -> Tensor:
    """The logits of the one row in `features` without each of the token sets `gone`, as (len(gone), n_classes)."""
    n = len(gone)
    rows = Features(
        *(
            tensor.expand(n, *tensor.shape[1:])
            for tensor in (
                features.image_tokens,
                features.image_pooled,
                features.text_tokens,
                features.text_pooled,
                features.text_mask,
            )
        )
    )
    if modality == "text":
        mask = rows.text_mask.clone()
        for i, tokens in enumerate(gone):
            mask[i, torch.from_numpy(tokens).to(mask.device)] = False
        return model(replace(rows, text_mask=mask, text_tokens=rows.text_tokens.masked_fill(~mask.unsqueeze(-1), 0.0)))
    # Every set leaves as many patches, so what stays is a batch again.
    everything = np.arange(rows.image_tokens.shape[1])
    kept = torch.from_numpy(np.stack([np.setdiff1d(everything, tokens) for tokens in gone])).to(
        rows.image_tokens.device
    )
    index = kept.unsqueeze(-1).expand(-1, -1, rows.image_tokens.shape[2])
    return model(replace(rows, image_tokens=torch.gather(rows.image_tokens, 1, index)))


def _probability(logits: Tensor, label: int) -> list[float]:
    return torch.softmax(logits.double(), dim=-1)[:, label].tolist()
