"""Learned-query pooling: several learned queries per modality each weigh its tokens, and each reads its own values."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.attention import N_HEADS, WIDTH, all_real
from train.fusion.attention_pooling import masked_softmax
from train.fusion.base import Fusion
from train.fusion.head import head


class LearnedQueryPooling(Fusion):
    """`V_p = concat_h(softmax(q_h (V K_h)^T / sqrt(d)) V U_h)`, the same for text, then `logits = W [V_p; T_p] + b`.

    Pooling by multi-head attention, Lee et al. 2019 (Set Transformer), https://arxiv.org/abs/1810.00825; the pooler of
    CoCa, Yu et al. 2022, https://arxiv.org/abs/2205.01917. Beside the paper's attention pooling: a projection to keys
    and one to values, N_HEADS weightings instead of one, and a scale. Padding gets a weight of exactly zero; a row
    with no text at all gets `T_p = 0`.

    Shape: image_tokens (batch, n_image, image_dim), text_tokens (batch, n_text, text_dim), text_mask (batch, n_text)
    -> (batch, n_classes)
    """

    uses_tokens = True

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.pool_image = QueryPool(image_dim)
        self.pool_text = QueryPool(text_dim)
        self.classify = head(2 * WIDTH, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image = self.pool_image(features.image_tokens, all_real(features.image_tokens))
        text = self.pool_text(features.text_tokens, features.text_mask)
        return self.classify(torch.cat([image, text], dim=-1))

    def attention(self, features: Features) -> tuple[Float[Tensor, "batch n_image"], Float[Tensor, "batch n_text"]]:
        """How much each token counts, averaged over the heads: rows sum to one, or to zero where a row has no text."""
        image = self.pool_image.weights(features.image_tokens, all_real(features.image_tokens))
        return image.mean(dim=1), self.pool_text.weights(features.text_tokens, features.text_mask).mean(dim=1)


class QueryPool(nn.Module):
    """Tokens of one modality to one vector.

    A learned query does not depend on the tokens, so `q_h (V K_h)^T = V (K_h q_h)`: keys are never computed per token,
    and values only of the weighted means. The same numbers as ordinary attention for a
    fiftieth of its multiplications, at 197 tokens.

    Shape: tokens (batch, n, dim), mask (batch, n) -> (batch, WIDTH)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(N_HEADS, WIDTH // N_HEADS))
        self.key = nn.Linear(dim, WIDTH, bias=False)  # a bias would cancel in the softmax
        self.value = nn.Linear(dim, WIDTH, bias=False)

    def forward(
        self, tokens: Float[Tensor, "batch n dim"], mask: Bool[Tensor, "batch n"]
    ) -> Float[Tensor, "batch width"]:
        """What the heads read, side by side."""
        means = torch.einsum("bhn,bnd->bhd", self.weights(tokens, mask), tokens)
        values = self.value.weight.unflatten(0, (N_HEADS, -1))  # (heads, width/heads, dim)
        return torch.einsum("bhd,hkd->bhk", means, values).flatten(1)

    def weights(
        self, tokens: Float[Tensor, "batch n dim"], mask: Bool[Tensor, "batch n"]
    ) -> Float[Tensor, "batch heads n"]:
        """How much each token counts for each head."""
        keys = self.key.weight.unflatten(0, (N_HEADS, -1))  # (heads, width/heads, dim)
        directions = torch.einsum("hk,hkd->hd", self.query, keys) * (WIDTH // N_HEADS) ** -0.5
        return masked_softmax(torch.einsum("bnd,hd->bhn", tokens, directions), mask.unsqueeze(1))
