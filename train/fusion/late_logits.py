"""Late logits: each modality is classified by itself, and a learned weight mixes the two answers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class LateLogits(Fusion):
    """`logits = w (W_v v + b_v) + (1 - w) (W_t t + b_t)` with one learned `w` in (0, 1), which starts at one half.

    The weighted sum rule of Kittler et al. 1998, "On Combining Classifiers", https://doi.org/10.1109/34.667881, on
    logits. A row without a description has `w = 1`: the image answers alone. With linear heads this can express
    on complete rows what `concat` can and no more, so a difference between the two is one of optimisation; with hidden
    layers image and text meet in those of `concat` alone.

    Shape: image_pooled (batch, image_dim), text_pooled (batch, text_dim), text_mask (batch, n_text)
    -> (batch, n_classes)
    """

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.classify_image = head(image_dim, n_classes, hidden_dims, dropout)
        self.classify_text = head(text_dim, n_classes, hidden_dims, dropout)
        self.image_weight = nn.Parameter(torch.zeros(()))  # before the sigmoid

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        has_text = features.text_mask.any(dim=1, keepdim=True)  # (batch, 1)
        w = torch.where(has_text, torch.sigmoid(self.image_weight), 1.0)  # (batch, 1)
        return w * self.classify_image(features.image_pooled) + (1 - w) * self.classify_text(features.text_pooled)
