"""A modality left out of some rows: as a row without it looks to every fusion, and at random in training."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from train.chance import uniform
from train.data import Rows
from train.features import Features, Scaling
from train.model import FusionModel


def without_text(features: Features, dropped: Bool[Tensor, " batch"]) -> Features:
    """The rows in `dropped` without their description, as if it had been empty."""
    return replace(
        features,
        text_mask=features.text_mask & ~dropped[:, None],
        text_tokens=features.text_tokens.masked_fill(dropped[:, None, None], 0.0),
        text_pooled=features.text_pooled.masked_fill(dropped[:, None], 0.0),
    )


def without_image(model: FusionModel, features: Features, dropped: Bool[Tensor, " batch"]) -> Features:
    """The rows in `dropped` with the mean over train in place of their image: zero after the model's scaling."""
    tokens, pooled = model.scaling["image_tokens"], model.scaling["image_pooled"]
    assert isinstance(tokens, Scaling)
    assert isinstance(pooled, Scaling)
    image = features.image_tokens, features.image_pooled
    return replace(
        features,
        image_tokens=torch.where(dropped[:, None, None], tokens.mean.to(image[0].dtype), image[0]),
        image_pooled=torch.where(dropped[:, None], pooled.mean.to(image[1].dtype), image[1]),
    )


def drop_modalities(
    model: FusionModel, features: Features, rows: Rows, share: float, seed: int, epoch: int
) -> Features:
    """A `share` of the rows lose their text or, as often, their image, never both; a model with one loses none.

    A function of (seed, epoch, row). After ModDrop, Neverova et al. 2016, https://arxiv.org/abs/1501.00102
    """
    if model.image is None or model.text is None or not share:
        return features
    draws = uniform(rows, 2, seed, epoch, 2)
    is_dropped, is_text = draws[:, 0] < share, draws[:, 1] < 0.5
    device = features.text_mask.device
    no_text, no_image = (
        torch.from_numpy(np.ascontiguousarray(chosen)).to(device, non_blocking=True)
        for chosen in (is_dropped & is_text, is_dropped & ~is_text)
    )
    return without_image(model, without_text(features, no_text), no_image)
