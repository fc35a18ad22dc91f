"""What every fusion is: a module from Features to logits that says which modalities it reads."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from train.features import Features


class Fusion(nn.Module, ABC):
    """A head over two modalities; `forward` maps features to one logit per class.

    The constructor takes `(image_dim, text_dim, n_classes)`, and what `train.fusion.head` makes of `hidden_dims` and
    `dropout`: by default a linear layer, the `W` of each formula. `uses_image`, `uses_text` and `uses_tokens` (beside
    the pooled vectors) are facts about `forward`: what is not used is not read, and a test checks that it has no
    influence. With `scales_tokens` it takes tokens as the backbones gave them, and each modality's `Scaling`.
    """

    uses_image: ClassVar[bool] = True
    uses_text: ClassVar[bool] = True
    uses_tokens: ClassVar[bool] = False
    scales_tokens: ClassVar[bool] = False

    @abstractmethod
    def __init__(
        self, image_dim: int, text_dim: int, n_classes: int, hidden_dims: tuple[int, ...] = (), dropout: float = 0.0
    ) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""

    @property
    def n_parameters(self) -> int:
        """How many numbers this head trains, backbones not counted."""
        return sum(parameter.numel() for parameter in self.parameters())
