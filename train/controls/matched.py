"""Matched image only: the image alone with as many trained parameters as the fusion's head has."""

from jaxtyping import Float
from torch import Tensor, nn

from train.controls.setting import Controlled, Setting
from train.features import Features
from train.fusion.base import Fusion


class MatchedImageOnly(Fusion):
    """`logits = W_2 gelu(W_1 v + b_1) + b_2`, its hidden width chosen so that it has about `n_parameters`.

    The fusion minus it is not explained by size. Widths are whole, so it misses the number by half of what one hidden
    unit costs at most (where the number allows one at all).

    Shape: image_pooled (batch, image_dim) -> (batch, n_classes)
    """

    uses_text = False

    def __init__(self, image_dim: int, text_dim: int, n_classes: int, n_wanted: int = 0) -> None:
        super().__init__(image_dim, text_dim, n_classes)
        per_unit = image_dim + 1 + n_classes
        n_hidden = max(1, round((n_wanted - n_classes) / per_unit))
        self.classify = nn.Sequential(nn.Linear(image_dim, n_hidden), nn.GELU(), nn.Linear(n_hidden, n_classes))

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class."""
        return self.classify(features.image_pooled)


def matched_image_only(setting: Setting) -> Controlled:
    """The run's image encoder and inputs, without text; a fine-tuned text encoder's weights are not made up for."""
    assert setting.image is not None
    n_wanted = setting.build(setting.image, setting.text).fusion.n_parameters
    model = setting.build(setting.image, None, model="image_only")
    model.fusion = MatchedImageOnly(setting.image.config.dim, 0, len(model.class_names), n_wanted).to(setting.device)
    return Controlled(model, setting.inputs)
