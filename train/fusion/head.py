"""The last step of a fusion: a linear layer, or one hidden layer before it."""

from torch import nn


def head(dim: int, n_classes: int, hidden_dim: int, dropout: float) -> nn.Module:
    """`W x + b`; with a `hidden_dim`, `W_2 dropout(gelu(W_1 x + b_1)) + b_2`.

    The reproduced paper speaks of linear layers. Where the encoders are frozen, a hidden layer is what lets a head draw
    a curved line.

    Shape: (batch, dim) -> (batch, n_classes)
    """
    if hidden_dim == 0:
        return nn.Linear(dim, n_classes)
    return nn.Sequential(*hidden(dim, hidden_dim, dropout), nn.Linear(hidden_dim, n_classes))


def hidden(dim: int, hidden_dim: int, dropout: float) -> list[nn.Module]:
    """The hidden layer alone: linear, GELU, dropout."""
    return [nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(dropout)]
