"""Concat: both pooled vectors side by side and a linear layer; late fusion in its plainest form."""

import torch
from jaxtyping import Float
from torch import Tensor

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class Concat(Fusion):
    """`logits = W [v; t] + b`: each modality votes, nothing multiplies.

    Ngiam et al. 2011, "Multimodal Deep Learning" (ICML), the shared linear layer over both modalities.

    Shape: image_pooled (batch, image_dim), text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.classify = head(image_dim + text_dim, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        return self.classify(torch.cat([features.image_pooled, features.text_pooled], dim=-1))
