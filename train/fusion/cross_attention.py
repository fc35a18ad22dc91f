"""Cross-attention: image tokens read the words and words read the image, once each way, before they are averaged."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.attention import WIDTH, Attention, FeedForward, all_real, masked_mean
from train.fusion.base import Fusion
from train.fusion.head import head


class CrossAttention(Fusion):
    """`X' = X + Attention(LN X, LN Y)`, `X'' = X' + FeedForward(X')`, the same for `Y` reading `X`, then linear.

    One co-attention layer of ViLBERT, Lu et al. 2019, https://arxiv.org/abs/1908.02265, with norms before instead of
    behind. `X` and `Y` are the tokens of image and text, projected to WIDTH; the backbones put positions into them.
    `logits = W [mean(LN X''); mean(LN Y'')] + b`, the means over real tokens. A row with no text at all: its image
    reads zero and the second mean is zero. A step costs 70 of attention pooling's (197 + 128 tokens of 768, one core).

    Shape: image_tokens (batch, n_image, image_dim), text_tokens (batch, n_text, text_dim), text_mask (batch, n_text)
    -> (batch, n_classes)
    """

    uses_tokens = True

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.project_image, self.project_text = nn.Linear(image_dim, WIDTH), nn.Linear(text_dim, WIDTH)
        self.image_norm, self.text_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.image_reads, self.text_reads = Attention(), Attention()
        self.image_layer, self.text_layer = FeedForward(), FeedForward()
        self.image_out_norm, self.text_out_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.classify = head(2 * WIDTH, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image, text = self.project_image(features.image_tokens), self.project_text(features.text_tokens)
        image_mask, text_mask = all_real(image), features.text_mask
        image_before, text_before = self.image_norm(image), self.text_norm(text)
        image = image + self.image_reads(image_before, text_before, text_mask)  # (batch, n_image, WIDTH)
        text = text + self.text_reads(text_before, image_before, image_mask)  # (batch, n_text, WIDTH)
        image, text = image + self.image_layer(image), text + self.text_layer(text)
        image_mean = masked_mean(self.image_out_norm(image), image_mask)
        text_mean = masked_mean(self.text_out_norm(text), text_mask)
        return self.classify(torch.cat([image_mean, text_mean], dim=-1))
