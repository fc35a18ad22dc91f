"""Dual FiLM: each modality scales and shifts the other's features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class DualFilm(Fusion):
    """`t' = t * (1 + gamma(v)) + beta(v)`, `v' = v * (1 + gamma(t)) + beta(t)`, then `logits = W [v'; t'] + b`.

    FiLM, Perez et al. 2018, https://arxiv.org/abs/1709.07871; applied in both directions. One linear layer per
    direction predicts gamma and beta together. Both are zero-initialised, so training starts from plain concat.

    Shape: image_pooled (batch, image_dim), text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.classify = head(
            image_dim + text_dim, n_classes, hidden_dims, dropout
        )  # first: the same draw as Concat's for a seed
        self.from_image = nn.Linear(image_dim, 2 * text_dim)
        self.from_text = nn.Linear(text_dim, 2 * image_dim)
        for predictor in (self.from_image, self.from_text):
            nn.init.zeros_(predictor.weight)
            nn.init.zeros_(predictor.bias)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image, text = features.image_pooled, features.text_pooled
        text_gamma, text_beta = self.from_image(image).chunk(2, dim=-1)  # (batch, text_dim) each
        image_gamma, image_beta = self.from_text(text).chunk(2, dim=-1)  # (batch, image_dim) each
        new_image = image * (1 + image_gamma) + image_beta
        new_text = text * (1 + text_gamma) + text_beta
        return self.classify(torch.cat([new_image, new_text], dim=-1))
