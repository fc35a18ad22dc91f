"""Low-rank tensor: every product of an image feature and a text feature votes, through a tensor of rank eight."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import hidden

RANK = 8


class LowRankTensor(Fusion):
    """`logits = sum_r w_r (A_r [1; v]) * (B_r [1; t]) + b`: a full tensor over `[1; v]` x `[1; t]`, in factors.

    Low-rank Multimodal Fusion, Liu et al. 2018, https://arxiv.org/abs/1806.00064. The ones keep what each modality
    says alone beside the products; a row without a description is left with the former. MultiBench's version holds
    its factors in a Python list, so that of 283,023 numbers (768 + 768 features, 23 classes) 31 are trained; here all
    are registered parameters.
    With `hidden_dims`, each modality passes hidden layers of its own first, as in that paper's subnetworks.
    The rows of the ones start at one, so that training starts with both kinds of term at the same scale.

    Shape: image_pooled (batch, image_dim), text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.image_hidden = nn.Sequential(*hidden(image_dim, hidden_dims, dropout))
        self.text_hidden = nn.Sequential(*hidden(text_dim, hidden_dims, dropout))
        self.image_factors = nn.Parameter(_factors((image_dim, *hidden_dims)[-1], n_classes))
        self.text_factors = nn.Parameter(_factors((text_dim, *hidden_dims)[-1], n_classes))
        self.rank_weights = nn.Parameter(torch.full((RANK,), 1 / RANK))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        image = torch.einsum("bd,rdc->brc", _with_one(self.image_hidden(features.image_pooled)), self.image_factors)
        text = torch.einsum("bd,rdc->brc", _with_one(self.text_hidden(features.text_pooled)), self.text_factors)
        return torch.einsum("r,brc,brc->bc", self.rank_weights, image, text) + self.bias


def _factors(dim: int, n_classes: int) -> Float[Tensor, "rank n_inputs n_classes"]:
    return torch.cat([torch.ones(RANK, 1, n_classes), torch.randn(RANK, dim, n_classes) * dim**-0.5], dim=1)


def _with_one(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch 1+dim"]:
    return torch.cat([torch.ones_like(x[:, :1]), x], dim=-1)
