"""Attention pooling: one learned vector per modality weighs its tokens; the weights are the explanation."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from train.features import Features, Scaling
from train.fusion.base import Fusion
from train.fusion.head import head


class AttentionPooling(Fusion):
    """`W_v = softmax(V w_v)` over tokens, `V_p = W_v^T V`, the same for text, then `logits = W [V_p; T_p] + b`.

    The form of the reproduced paper (its slides): a (dim, 1) vector per modality, no scaling, no projection. The idea:
    Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", https://aclanthology.org/N16-1174

    Padding gets a weight of exactly zero; a row with no text at all gets `T_p = 0`.
    Zero-initialised scores: training starts from the mean over tokens.

    V and T are scaled tokens. A softmax does not see what all scores share, and a weighted sum can be scaled itself:
    so the tokens are read as they are: a third less for a step on cached features. In single precision also under
    autocast: half of it would round what the means share.

    Shape: image_tokens (batch, n_image, image_dim), text_tokens (batch, n_text, text_dim), text_mask (batch, n_text)
    -> (batch, n_classes)
    """

    uses_tokens = True
    scales_tokens = True

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.image_score = nn.Linear(image_dim, 1, bias=False)  # a bias would cancel in the softmax
        self.text_score = nn.Linear(text_dim, 1, bias=False)
        self.classify = head(image_dim + text_dim, n_classes, hidden_dims, dropout)
        nn.init.zeros_(self.image_score.weight)
        nn.init.zeros_(self.text_score.weight)

    def forward(
        self, features: Features, image_scaling: Scaling | None = None, text_scaling: Scaling | None = None
    ) -> Float[Tensor, "batch n_classes"]:
        """One logit per class. Tokens are taken as scaled already where no scaling is given."""
        image_weights, text_weights = self.attention(features, image_scaling, text_scaling)
        image = _pooled(features.image_tokens, image_weights, image_scaling)
        text = _pooled(features.text_tokens, text_weights, text_scaling)
        return self.classify(torch.cat([image, text], dim=-1))

    def attention(
        self, features: Features, image_scaling: Scaling | None = None, text_scaling: Scaling | None = None
    ) -> tuple[Float[Tensor, "batch n_image"], Float[Tensor, "batch n_text"]]:
        """How much each token counts: rows sum to one, or to zero where a row has no text."""
        image_scores = _scores(features.image_tokens, self.image_score.weight[0], image_scaling)
        text_scores = _scores(features.text_tokens, self.text_score.weight[0], text_scaling)
        return torch.softmax(image_scores, dim=-1), masked_softmax(text_scores, features.text_mask)


def _scores(
    tokens: Float[Tensor, "batch n dim"], vector: Float[Tensor, " dim"], scaling: Scaling | None
) -> Float[Tensor, "batch n"]:
    with torch.autocast(tokens.device.type, enabled=False):
        return tokens.to(vector.dtype) @ (vector if scaling is None else scaling.of_scores(vector))


def _pooled(
    tokens: Float[Tensor, "batch n dim"], weights: Float[Tensor, "batch n"], scaling: Scaling | None
) -> Float[Tensor, "batch dim"]:
    with torch.autocast(tokens.device.type, enabled=False):
        pooled = torch.einsum("bn,bnd->bd", weights, tokens.to(weights.dtype))
        return pooled if scaling is None else scaling.of_weighted_sum(pooled, weights)


def masked_softmax(
    scores: Float[Tensor, "batch *heads n"], mask: Bool[Tensor, "batch *#heads n"]
) -> Float[Tensor, "batch *heads n"]:
    """Softmax over the positions where `mask` is True; exactly zero elsewhere, and everywhere in a row without any."""
    lowest = torch.finfo(scores.dtype).min  # not -inf: a row without any token would become NaN
    return torch.softmax(scores.masked_fill(~mask, lowest), dim=-1) * mask
