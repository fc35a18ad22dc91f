"""GMU: one sigmoid per hidden feature decides whether the image or the description fills it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class Gmu(Fusion):
    """`h = z * tanh(W_v v) + (1 - z) * tanh(W_t t)` with `z = sigmoid(W_z [v; t])`, then `logits = W h + b`.

    Gated Multimodal Units, Arevalo et al. 2017, https://arxiv.org/abs/1702.01992. As there, the gate reads both raw
    vectors and nothing inside the unit has a bias: a row without a description has `tanh(W_t t) = 0`. `h` is as wide
    as the wider modality.

    Shape: image_pooled (batch, image_dim), text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        width = max(image_dim, text_dim)
        self.from_image = nn.Linear(image_dim, width, bias=False)
        self.from_text = nn.Linear(text_dim, width, bias=False)
        self.gate = nn.Linear(image_dim + text_dim, width, bias=False)
        self.classify = head(width, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image = torch.tanh(self.from_image(features.image_pooled))  # (batch, width)
        text = torch.tanh(self.from_text(features.text_pooled))  # (batch, width)
        z = torch.sigmoid(self.gate(torch.cat([features.image_pooled, features.text_pooled], dim=-1)))
        return self.classify(z * image + (1 - z) * text)
