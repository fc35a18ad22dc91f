"""Second image: another vision encoder's tokens and pooled vector where the text's stand.

Two encoders of one photograph know more than one. A text whose gain is no larger than that says nothing that a second
look would not. On DermNet, DINOv2 beside CLIP and ResNet-50 gains six times what the paper's text does.
"""

import copy

import numpy as np
from torch import nn

from builders.errors import UserError
from train.backbones import load_image_backbone
from train.controls.setting import Controlled, Setting, other_text
from train.data import Rows
from train.features import Features
from train.given_tower import GivenFeatures
from train.inputs import CachedInputs, Inputs, cache_image_features
from train.model import FusionModel
from train.pixels import key_of_pixels, pack_pixels


def second_image(setting: Setting) -> Controlled:
    """The encoder `second_image_backbone` as the fusion's second modality, frozen or trained as the first one is."""
    examples, config = setting.examples, setting.config
    if config.second_image_backbone is None:
        raise UserError("the control second_image needs a second image encoder", "--second-image-backbone FOLDER")
    assert examples.read_image is not None
    backbone = load_image_backbone(config.second_image_backbone, config.second_image_revision).to(setting.device).eval()
    key = key_of_pixels(backbone.pixels, examples.image_sha256s)
    path = setting.cache / f"pixels-{key}.npy"
    pixels = pack_pixels(examples.read_image, len(examples.image_ids), backbone.pixels, path, lambda: None)
    everything = np.arange(len(examples.image_ids))
    if isinstance(setting.inputs, CachedInputs):
        features = cache_image_features(backbone, pixels, key, setting.cache, lambda _: None, setting.tell)
        mask = np.ones(features[0].shape[:2], dtype=np.bool_)
        texts = CachedInputs(None, features, mask, setting.device)
        model = setting.build(setting.image, GivenFeatures(("second_image",), backbone.config.dim))
        return Controlled(model, other_text(setting, texts, everything))
    images = copy.copy(setting.inputs)
    images.pixels, images.texts = pixels, None
    text: object = backbone
    model = setting.build(setting.image, text)  # pyright: ignore[reportArgumentType] - an image encoder in text's place
    alike = config.model_copy(update={"text_lr": config.image_lr, "text_layers": config.image_layers})
    return Controlled(model, other_text(setting, _SecondImages(images), everything), alike)


class _SecondImages:
    """What the second encoder makes of the same, equally augmented photographs, as if it were text."""

    def __init__(self, images: Inputs) -> None:
        self.images = images

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        seen = self.images.features(_SecondAsImage(model), rows, order)
        mask = seen.image_pooled.new_ones(len(rows), seen.image_tokens.shape[1]).bool()
        return Features(seen.text_tokens, seen.text_pooled, seen.image_tokens, seen.image_pooled, mask)


class _SecondAsImage(FusionModel):
    """A model's second encoder where its image encoder would stand: all that live inputs ask of a model."""

    def __init__(self, model: FusionModel) -> None:
        nn.Module.__init__(self)
        self.image = model.text
        self.text = None
        self.fusion = model.fusion
        self.uses_tokens = model.uses_tokens
