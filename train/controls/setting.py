"""What a control is: a function from what a run would be to a model and inputs that differ in one thing."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from train.backbones import ImageBackbone, TextBackbone
from train.config import TrainConfig
from train.data import Examples, Rows, Split
from train.features import Features
from train.given_tower import GivenFeatures
from train.inputs import CachedInputs, Inputs
from train.model import FusionModel
from train.progress import say


@dataclass(frozen=True, slots=True)
class Setting:
    """A run of `model` with `seed`, before its model is built; `image` and `text` are the run's own to change."""

    model: str
    seed: int
    examples: Examples
    split: Split
    image: ImageBackbone | GivenFeatures | None
    text: TextBackbone | GivenFeatures | None
    inputs: Inputs
    config: TrainConfig
    device: torch.device
    console: Console

    @property
    def cache(self) -> Path:
        """Where the experiment keeps features."""
        return self.config.out / "cache"

    def tell(self, message: str) -> None:
        """Say what a person should know, on stderr."""
        say(self.console, message)

    def build(
        self,
        image: ImageBackbone | GivenFeatures | None,
        text: TextBackbone | GivenFeatures | None,
        model: str | None = None,
    ) -> FusionModel:
        """The fusion of this run, or `model`, over two backbones; its weights a function of the seed."""
        torch.manual_seed(self.seed)
        return FusionModel(
            model or self.model, self.examples.class_names, image, text, self.config.hidden_dims, self.config.dropout
        ).to(self.device)


@dataclass(frozen=True, slots=True)
class Controlled:
    """What is trained in place of the run; `config` where the training itself differs."""

    model: FusionModel
    inputs: Inputs
    config: TrainConfig | None = None


class OtherText:
    """Inputs whose images are those of one and whose texts those of another, row `row_of[i]` of it for row i."""

    def __init__(self, images: Inputs, texts: Inputs, row_of: Rows) -> None:
        self.images = images
        self.texts = texts
        self.row_of = row_of

    def features(self, model: FusionModel, rows: Rows, order: tuple[int, int] | None = None) -> Features:
        """The features of `rows`; `order` is (seed, epoch) for augmented pixels."""
        seen = self.images.features(model, rows, order)
        read = self.texts.features(model, self.row_of[rows], order)
        return replace(seen, text_tokens=read.text_tokens, text_pooled=read.text_pooled, text_mask=read.text_mask)


def other_text(setting: Setting, texts: Any, row_of: Rows) -> Inputs:
    """The setting's images beside `texts`, which has `features` as all inputs have."""
    return cast(Inputs, OtherText(images_of(setting.inputs), texts, row_of))


def images_of(inputs: Inputs) -> Inputs:
    """`inputs` that give no text."""
    images = copy.copy(inputs)
    if isinstance(images, CachedInputs):
        images.text = images.text_mask = None
    else:
        images.texts = None
    return images


def texts_of(inputs: Inputs) -> Inputs:
    """`inputs` that give no image."""
    texts = copy.copy(inputs)
    if isinstance(texts, CachedInputs):
        texts.image = None
    else:
        texts.pixels = None
    return texts
