"""The last step of a fusion: a linear layer, or hidden layers before it."""

from torch import nn


def head(dim: int, n_classes: int, hidden_dims: tuple[int, ...], dropout: float) -> nn.Module:
    """`W x + b`, of `dropout(gelu(W_1 x + b_1))` in place of x for each of `hidden_dims`.

    The reproduced paper speaks of linear layers. Where the encoders are frozen, a hidden layer is what lets a head draw
    a curved line.

    Shape: (batch, dim) -> (batch, n_classes)
    """
    if not hidden_dims:
        return nn.Linear(dim, n_classes)
    return nn.Sequential(*hidden(dim, hidden_dims, dropout), nn.Linear(hidden_dims[-1], n_classes))


def hidden(dim: int, hidden_dims: tuple[int, ...], dropout: float) -> list[nn.Module]:
    """The hidden layers alone: linear, GELU, dropout, and again."""
    layers: list[nn.Module] = []
    for before, width in zip((dim, *hidden_dims), hidden_dims, strict=False):
        layers += [nn.Linear(before, width), nn.GELU(), nn.Dropout(dropout)]
    return layers
