"""Gating: a sigmoid per feature decides how much of it passes, looking at both modalities."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class Gating(Fusion):
    """`F = sigmoid(W [v; t] + b) * [v; t]`: each feature is kept or filtered out, whatever modality it came from.

    The gate after Arevalo et al. 2017 (Gated Multimodal Units), https://arxiv.org/abs/1702.01992. Their unit mixes two
    projections, `z * tanh(W_v v) + (1 - z) * tanh(W_t t)`, so one modality gives way to the other. The reproduced
    paper describes "sigmoid feature selection" that "filters irrelevant information": this form, without projections.

    Shape: image_pooled (batch, image_dim), text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.gate = nn.Linear(image_dim + text_dim, image_dim + text_dim)
        self.classify = head(image_dim + text_dim, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        both = torch.cat([features.image_pooled, features.text_pooled], dim=-1)  # (batch, image_dim + text_dim)
        return self.classify(torch.sigmoid(self.gate(both)) * both)
