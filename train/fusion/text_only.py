"""Text only: the description's pooled vector and a linear layer; what words alone are worth."""

from jaxtyping import Float
from torch import Tensor

from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class TextOnly(Fusion):
    """The baseline that never sees the image: `logits = W t + b`.

    Devlin et al. 2019, section 4.1 (a linear layer over [CLS]), https://arxiv.org/abs/1810.04805

    Shape: text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    uses_image = False

    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        self.classify = head(text_dim, n_classes, hidden_dims, dropout)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        return self.classify(features.text_pooled)
