"""Attention pooling: one learned vector per modality weighs its tokens; the weights are the explanation."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class AttentionPooling(Fusion):
    """`W_v = softmax(V w_v)` over tokens, `V_p = W_v^T V`, the same for text, then `logits = W [V_p; T_p] + b`.

    The form of the reproduced paper (its slides): a (dim, 1) vector per modality, no scaling, no projection. The idea:
    Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", https://aclanthology.org/N16-1174

    Padding gets a weight of exactly zero; a row with no text at all gets `T_p = 0`.
    Zero-initialised scores: training starts from the mean over tokens.

    Shape: image_tokens (batch, n_image, image_dim), text_tokens (batch, n_text, text_dim), text_mask (batch, n_text)
    -> (batch, n_classes)
    """

    uses_tokens = True

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.image_score = nn.Linear(image_dim, 1, bias=False)  # a bias would cancel in the softmax
        self.text_score = nn.Linear(text_dim, 1, bias=False)
        self.classify = head(image_dim + text_dim, n_classes, hidden_dims, dropout)
        nn.init.zeros_(self.image_score.weight)
        nn.init.zeros_(self.text_score.weight)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image_weights, text_weights = self.attention(features)
        image = torch.einsum("bn,bnd->bd", image_weights, features.image_tokens)
        text = torch.einsum("bn,bnd->bd", text_weights, features.text_tokens)
        return self.classify(torch.cat([image, text], dim=-1))

    def attention(self, features: Features) -> tuple[Float[Tensor, "batch n_image"], Float[Tensor, "batch n_text"]]:
        """How much each token counts: rows sum to one, or to zero where a row has no text."""
        image_scores = self.image_score(features.image_tokens).squeeze(-1)  # (batch, n_image)
        text_scores = self.text_score(features.text_tokens).squeeze(-1)  # (batch, n_text)
        return torch.softmax(image_scores, dim=-1), masked_softmax(text_scores, features.text_mask)


def masked_softmax(
    scores: Float[Tensor, "batch *heads n"], mask: Bool[Tensor, "batch *#heads n"]
) -> Float[Tensor, "batch *heads n"]:
    """Softmax over the positions where `mask` is True; exactly zero elsewhere, and everywhere in a row without any."""
    lowest = torch.finfo(scores.dtype).min  # not -inf: a row without any token would become NaN
    return torch.softmax(scores.masked_fill(~mask, lowest), dim=-1) * mask
