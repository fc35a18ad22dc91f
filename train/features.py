"""What a fusion sees of a batch: tokens and one pooled vector per modality."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

_FLOAT32_BYTES = 2 << 30  # what is kept of all rows is in half precision beyond this many bytes


@dataclass(frozen=True, slots=True)
class Features:
    """A batch of images and descriptions after their backbones, padded to the longest text of the batch or set.

    Tokens are the backbone's last hidden states; `pooled` is one vector per modality, chosen per architecture in
    `train/backbones.py`. `text_mask` is True on real tokens. A row without a description has it False everywhere, and
    zeros in `text_tokens` and `text_pooled`. What a fusion does not use (a modality, or all tokens) has width zero.
    """

    image_tokens: Float[Tensor, "batch n_image image_token_dim"]
    image_pooled: Float[Tensor, "batch image_dim"]
    text_tokens: Float[Tensor, "batch n_text text_token_dim"]
    text_pooled: Float[Tensor, "batch text_dim"]
    text_mask: Bool[Tensor, "batch n_text"]


def precision_of(shape: tuple[int, ...]) -> np.dtype[Any]:
    """The precision in which an array of this shape is kept on disk: float32, or float16 where that is too large."""
    return np.dtype(np.float32 if 4 * np.prod(shape) <= _FLOAT32_BYTES else np.float16)
