"""A trained model's answer to one photograph and, if there is one, its description; from a folder, without network."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from builders.decode import BadImageError, decode_rgb
from builders.errors import UserError
from train.attention_maps import attention_of, patch_grid, pools_by_attention
from train.backbones import ImageBackbone, TextBackbone
from train.features import Features
from train.model import FusionModel, ModelConfig, load_fusion_model
from train.pixels import resize_and_crop
from train.texts import tokenise
from train.word_spans import word_spans

TextUse = Literal["given", "missing", "not used"]
NOTICE = "Research only, not for clinical use."


@dataclass(frozen=True, slots=True)
class Prediction:
    """The probability of each class, highest first; they add up to one.

    `text` tells whether a description was `given`, was `missing`, or is `not used` by this model. `is_text_cut` when
    the description was longer than the model reads.
    """

    image: str
    image_sha256: str
    probabilities: dict[str, float]
    text: TextUse
    is_text_cut: bool

    @property
    def best(self) -> str:
        """The class with the highest probability."""
        return next(iter(self.probabilities))

    @property
    def message(self) -> str:
        """What a reader has to know about the text of this answer; empty where all is as in training."""
        if self.text == "missing":
            return "no description was given: this answer is from the image alone, the model was trained with both"
        if self.is_text_cut:
            return "the description is longer than the model reads; its end was cut"
        return ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a model that pools by attention looks; weights are over what the backbones made of the image and text.

    `patches` is (rows, columns), row by row from the top left, None where the backbone's tokens have no known place.
    `seen` is the photograph as the model sees it, resized and cropped. `words` has each word of the description with
    its weight, zero for those that the model does not read.
    """

    patches: npt.NDArray[np.float32] | None
    seen: Image.Image
    words: list[tuple[str, float]]


class Predictor:
    """A loaded model folder; keep it to ask about many images.

    Logits are divided by the `temperature` that fits the model's validation rows best (Guo et al. 2017, On Calibration
    of Modern Neural Networks, https://arxiv.org/abs/1706.04599), as training wrote it into the folder.
    """

    def __init__(self, model_folder: Path) -> None:
        self.folder = model_folder
        self._model: FusionModel
        self.config: ModelConfig
        self._model, self.config = load_fusion_model(model_folder)
        stated = self.config.training.get("temperature")
        self.is_calibrated = isinstance(stated, int | float) and stated > 0
        self.temperature = float(stated) if self.is_calibrated and stated is not None else 1.0

    @property
    def notice(self) -> str:
        """What has to be said beside every answer: what it is for, and how far its probabilities can be trusted."""
        if not self.is_calibrated:
            return f"{NOTICE} Probabilities are not calibrated."
        return (
            f"{NOTICE} Probabilities are calibrated on the validation images alone (temperature"
            f" {self.temperature:.2f}): on photographs of another kind they say less."
        )

    def check(self, images: list[Path]) -> None:
        """Raise `UserError` for the first of `images` that cannot be read or decoded."""
        for image in images:
            _read(image)

    def check_explains(self) -> ImageBackbone:
        """The backbone whose patches are weighed. Raises `UserError` for a fusion that does not pool by attention."""
        if not pools_by_attention(self._model) or not isinstance(self._model.image, ImageBackbone):
            raise UserError(
                f"{self.folder} is a model of {self.config.fusion}, which does not tell where it looks",
                "a model of attention_pooling or learned_query_pooling",
            )
        return self._model.image

    @torch.inference_mode()
    def predict(self, image: Path, description: str | None = None) -> Prediction:
        """Answer for one image file. Without a description the text is empty, as for such a row in training.

        Raises `UserError` on an image that cannot be read or decoded.
        """
        content, upright = _read(image)
        features, use, is_cut = self._features(upright, description)
        logits = self._model(features)
        probabilities: list[float] = F.softmax(logits[0].double() / self.temperature, dim=-1).tolist()
        if not all(math.isfinite(p) for p in probabilities):
            raise UserError(f"the model {self.folder} gave no number for {image}", "train it again")
        ranked = sorted(zip(self.config.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
        return Prediction(str(image), hashlib.sha256(content).hexdigest(), dict(ranked), use, is_cut)

    @torch.inference_mode()
    def explain(self, image: Path, description: str | None = None) -> Explanation:
        """Where attention pooling looks in one image and its description.

        Raises `UserError` for a fusion that does not pool by attention, and on an image that cannot be used.
        """
        backbone = self.check_explains()
        _, upright = _read(image)
        features, _, _ = self._features(upright, description)
        _, of_image, of_text = attention_of(self._model, features)
        weights: npt.NDArray[np.float32] = of_image[0].numpy()
        grid = patch_grid(backbone, len(weights))
        patches = None if grid is None else weights[grid.n_before :].reshape(grid.rows, grid.columns)
        words: list[tuple[str, float]] = []
        text = description or ""
        if text.strip() and isinstance(self._model.text, TextBackbone):
            found = word_spans(self._model.text.tokenizer, text, self.config.max_text_tokens)
            if found is not None:
                per_word, _ = found.per_word(of_text[0].numpy())
                words = [(text[start:end], weight) for (start, end), weight in zip(found.spans, per_word, strict=True)]
        seen = Image.fromarray(np.asarray(resize_and_crop(upright, backbone.pixels)))
        return Explanation(patches, seen, words)

    def _features(self, upright: Image.Image, description: str | None) -> tuple[Features, TextUse, bool]:
        """One row of features, whether there is text in it, and whether that was cut."""
        pixels = token_ids = mask = None
        use: TextUse = "not used"
        is_cut = False
        if isinstance(self._model.image, ImageBackbone):
            pixels = torch.from_numpy(np.array(resize_and_crop(upright, self._model.image.pixels))).unsqueeze(0)
        if isinstance(self._model.text, TextBackbone):
            text = description or ""
            use = "given" if text.strip() else "missing"
            tokens = tokenise(self._model.text.tokenizer, [text], self.config.max_text_tokens)
            token_ids, mask = torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.mask)
            is_cut = tokens.n_cut > 0
        return self._model.encode(pixels, token_ids, mask, n_rows=1), use, is_cut


def _read(image: Path) -> tuple[bytes, Image.Image]:
    """A file's bytes, and the upright photograph in them."""
    try:
        if image.exists() and not image.is_file():
            raise UserError(f"{image} is not a file", "name an image, such as photo.jpg")
        content = image.read_bytes()
        upright, _ = decode_rgb(content)
    except FileNotFoundError as error:
        raise UserError(f"there is no image at {image}") from error
    except OSError as error:
        raise UserError(f"the image {image} cannot be read: {error}") from error
    except BadImageError as error:
        raise UserError(f"the image {image} cannot be decoded: {error}") from error
    return content, upright


def predict(model_folder: Path, image: Path, description: str | None = None) -> Prediction:
    """`Predictor(model_folder).predict(image, description)`, for a single question."""
    return Predictor(model_folder).predict(image, description)
