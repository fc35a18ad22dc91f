"""Bottleneck tokens: two transformers side by side that tell each other what fits into four shared tokens."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.attention import WIDTH, Attention, FeedForward, all_real, masked_mean
from train.fusion.base import Fusion
from train.fusion.head import head

N_BOTTLENECKS = 4
N_LAYERS = 2  # tokens hear of the other modality from the second on


class BottleneckTokens(Fusion):
    """`[X; Z_x] = Layer_x([X; Z])`, `[Y; Z_y] = Layer_y([Y; Z])`, `Z = (Z_x + Z_y) / 2`, twice, then a linear layer.

    Multimodal Bottleneck Transformer, Nagrani et al. 2021, https://arxiv.org/abs/2107.00135; the backbones are its
    layers of one modality, N_BOTTLENECKS as there. `X` and `Y` are the tokens of image and text, projected to WIDTH.
    `logits = W [mean(LN X); mean(LN Y)] + b`, the means over real tokens (there: a class token, which not every
    backbone has). In a row with no text at all `Z = Z_x` and the second mean is zero. A step costs 140 of attention
    pooling's (197 + 128 tokens of 768, one core).

    Shape: image_tokens (batch, n_image, image_dim), text_tokens (batch, n_text, text_dim), text_mask (batch, n_text)
    -> (batch, n_classes)
    """

    uses_tokens = True

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.project_image, self.project_text = nn.Linear(image_dim, WIDTH), nn.Linear(text_dim, WIDTH)
        self.bottlenecks = nn.Parameter(torch.randn(N_BOTTLENECKS, WIDTH) * 0.02)
        self.image_layers = nn.ModuleList(BottleneckLayer() for _ in range(N_LAYERS))
        self.text_layers = nn.ModuleList(BottleneckLayer() for _ in range(N_LAYERS))
        self.image_out_norm, self.text_out_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.classify = head(2 * WIDTH, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image, text = self.project_image(features.image_tokens), self.project_text(features.text_tokens)
        image_mask, text_mask = all_real(image), features.text_mask
        has_text = text_mask.any(dim=1)[:, None, None]  # (batch, 1, 1)
        shared = self.bottlenecks.expand(len(image), -1, -1)  # (batch, n_bottlenecks, WIDTH)
        for image_layer, text_layer in zip(self.image_layers, self.text_layers, strict=True):
            image, from_image = image_layer(image, shared, image_mask)
            text, from_text = text_layer(text, shared, text_mask)
            shared = torch.where(has_text, (from_image + from_text) / 2, from_image)
        image_mean = masked_mean(self.image_out_norm(image), image_mask)
        text_mean = masked_mean(self.text_out_norm(text), text_mask)
        return self.classify(torch.cat([image_mean, text_mean], dim=-1))


class BottleneckLayer(nn.Module):
    """One modality's layer: its tokens and the bottlenecks read all of both, padding excepted.

    Shape: tokens (batch, n, WIDTH), bottlenecks (batch, n_bottlenecks, WIDTH), mask (batch, n) -> the first two, new
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.feed_forward = FeedForward()

    def forward(
        self,
        tokens: Float[Tensor, "batch n width"],
        bottlenecks: Float[Tensor, "batch n_bottlenecks width"],
        mask: Bool[Tensor, "batch n"],
    ) -> tuple[Float[Tensor, "batch n width"], Float[Tensor, "batch n_bottlenecks width"]]:
        """The tokens and the bottlenecks after this layer."""
        both = torch.cat([tokens, bottlenecks], dim=1)  # (batch, n + n_bottlenecks, WIDTH)
        normed = self.norm(both)
        both = both + self.attention(normed, normed, torch.cat([mask, all_real(bottlenecks)], dim=1))
        both = both + self.feed_forward(both)
        return both[:, : tokens.shape[1]], both[:, tokens.shape[1] :]
