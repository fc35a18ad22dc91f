"""What a fusion sees of a batch: tokens and one pooled vector per modality."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


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
