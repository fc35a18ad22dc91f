"""Matched image only: the image alone with as many trained parameters as the fusion's head has."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from train.controls.setting import Controlled, Setting
from train.features import Features
from train.fusion.base import Fusion
from train.fusion.head import head


class MatchedImageOnly(Fusion):
    """The image-only head with as many parameters as the fusion's: the fusion minus it is not explained by size.

    Its hidden layers are as many as the run's (one where it has none), with their dropout, and in proportion to them.
    Widths are whole: with one hidden layer it misses the number by half of what one unit costs at most (where the
    number allows a unit at all).

    Shape: image_pooled (batch, image_dim) -> (batch, n_classes)
    """

    uses_text = False

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        n_classes: int,
        hidden_dims: tuple[int, ...] = (),
        dropout: float = 0.0,
        n_wanted: int = 0,
    ) -> None:
        super().__init__(image_dim, text_dim, n_classes, hidden_dims, dropout)
        widths = _widths((image_dim, n_classes), hidden_dims or (1,), n_wanted)
        self.classify = head(image_dim, n_classes, widths, dropout if hidden_dims else 0.0)

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        return self.classify(features.image_pooled)


def _widths(ends: tuple[int, int], like: tuple[int, ...], n_wanted: int) -> tuple[int, ...]:
    """Widths in proportion to `like`, whose head from `ends[0]` to `ends[1]` dimensions is nearest to `n_wanted`."""

    def scaled(first: int) -> tuple[int, ...]:
        return tuple(max(1, round(first * width / like[0])) for width in like)

    def n_parameters(widths: tuple[int, ...]) -> int:
        dims = (ends[0], *widths, ends[1])
        return sum((before + 1) * after for before, after in pairwise(dims))

    first = 1
    while n_parameters(scaled(first + 1)) <= n_wanted:
        first += 1
    return min((scaled(first), scaled(first + 1)), key=lambda widths: abs(n_parameters(widths) - n_wanted))


def matched_image_only(setting: Setting) -> Controlled:
    """The run's image encoder and inputs, without text; a fine-tuned text encoder's weights are not made up for."""
    assert setting.image is not None
    n_wanted = setting.build(setting.image, setting.text).fusion.n_parameters
    model = setting.build(setting.image, None, model="image_only")
    model.fusion = MatchedImageOnly(
        setting.image.config.dim, 0, len(model.class_names), model.hidden_dims, model.dropout, n_wanted
    ).to(setting.device)
    return Controlled(model, setting.inputs)
