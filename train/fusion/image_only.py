"""Image only: the photograph's pooled vector and a linear layer; the row that every fusion has to beat."""

from jaxtyping import Float
from torch import Tensor

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class ImageOnly(Fusion):
    """The baseline that never reads the description: `logits = W v + b`.

    Dosovitskiy et al. 2021, section 3.1 (a linear layer over the class token), https://arxiv.org/abs/2010.11929

    Shape: image_pooled (batch, image_dim) -> (batch, n_classes)
    """

    uses_text = False

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.classify = head(image_dim, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        return self.classify(features.image_pooled)
