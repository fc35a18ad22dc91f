"""Text only: the description's pooled vector and a linear layer; what words alone are worth."""

from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features
from train.fusion.base import Fusion


class TextOnly(Fusion):
    """The baseline that never sees the image: `logits = W t + b`.

    Devlin et al. 2019, section 4.1 (a linear layer over [CLS]), https://arxiv.org/abs/1810.04805

    Shape: text_pooled (batch, text_dim) -> (batch, n_classes)
    """

    uses_image = False

    def __init__(self, image_dim: int, text_dim: int, n_classes: int) -> None:
        super().__init__(image_dim, text_dim, n_classes)
        self.classify = nn.Linear(text_dim, n_classes)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        return self.classify(features.text_pooled)
