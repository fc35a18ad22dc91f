"""What a fusion sees of a batch: tokens and one pooled vector per modality, and the scale of their numbers."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


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


class Scaling(nn.Module):
    """`(x - mean) / sd` per dimension, with numbers measured on the train split; does nothing until they are set.

    Backbones differ by orders of magnitude in scale, so one learning rate would not fit all heads. It is affine: what
    a linear layer or the paper's attention pooling can express stays the same. It is part of the saved model.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("sd", torch.ones(dim))

    def forward(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """`x`, scaled."""
        return (x - self.mean).div_(self.sd)  # tokens of a batch fill tens of MiB: one copy of them, not two

    def of_scores(self, vector: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        """The vector whose products with `x` are those of `vector` with scaled `x`, less one number for all `x`."""
        return vector / self.sd

    def of_weighted_sum(
        self, weighted: Float[Tensor, "*rows dim"], weights: Float[Tensor, "*rows n"]
    ) -> Float[Tensor, "*rows dim"]:
        """`sum(weights * scaled x)` from `weighted`, which is `sum(weights * x)`: one vector is scaled instead of n."""
        return (weighted - weights.sum(dim=-1, keepdim=True) * self.mean) / self.sd
