"""What attends inside a fusion: multi-head attention, the layer behind it and a mean, all blind to padding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 256  # of a token inside a fusion: a third of a base-sized backbone's, so a ninth of the multiplications
N_HEADS = 4


class Attention(nn.Module):
    """`concat_h(softmax(Q_h K_h^T / sqrt(WIDTH / N_HEADS)) V_h) O`: queries read those context tokens that are real.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, without biases: one on the keys would cancel in the
    softmax, and so a row without any real context token reads exactly zero.

    Shape: queries (batch, n_queries, WIDTH), context (batch, n_context, WIDTH), context_mask (batch, n_context)
    -> (batch, n_queries, WIDTH)
    """

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(
        self,
        queries: Float[Tensor, "batch n_queries width"],
        context: Float[Tensor, "batch n_context width"],
        context_mask: Bool[Tensor, "batch n_context"],
    ) -> Float[Tensor, "batch n_queries width"]:
        """What each query reads of its row's context."""
        q, k, v = _in_heads(self.query(queries)), _in_heads(self.key(context)), _in_heads(self.value(context))
        has_context = context_mask.any(dim=1)  # (batch,)
        allowed = context_mask | ~has_context.unsqueeze(-1)  # a softmax over nothing is NaN: over all, zeroed below
        read = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed[:, None, None]
        )  # (batch, heads, n, width/heads)
        return self.out(read.transpose(1, 2).flatten(2)) * has_context[:, None, None]


def _in_heads(x: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch heads n head_width"]:
    return x.unflatten(-1, (N_HEADS, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """`W_2 gelu(W_1 LN(x) + b_1) + b_2`, four times as wide inside: what follows attention in a transformer layer."""

    def __init__(self) -> None:
        super().__init__(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


def masked_mean(x: Float[Tensor, "batch n dim"], mask: Bool[Tensor, "batch n"]) -> Float[Tensor, "batch dim"]:
    """The mean over the tokens where `mask` is True; zeros for a row without any."""
    weights = mask.to(x.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # (batch, n)
    return torch.einsum("bn,bnd->bd", weights, x)


def all_real(x: Float[Tensor, "batch n dim"]) -> Bool[Tensor, "batch n"]:
    """The mask of tokens without padding, such as an image's."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
