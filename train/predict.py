"""A trained model's answer to one photograph and, if there is one, its description; from a folder, without network."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from builders.decode import BadImageError, decode_rgb
from builders.errors import UserError
from train.model import FusionModel, ModelConfig, load_fusion_model
from train.pixels import resize_and_crop
from train.texts import tokenise

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

    @torch.inference_mode()
    def predict(self, image: Path, description: str | None = None) -> Prediction:
        """Answer for one image file. Without a description the text is empty, as for such a row in training.

        Raises `UserError` on an image that cannot be read or decoded.
        """
        content, upright = _read(image)
        pixels = token_ids = mask = None
        use, is_cut = "not used", False
        if self._model.image is not None:
            pixels = torch.from_numpy(np.array(resize_and_crop(upright, self._model.image.pixels))).unsqueeze(0)
        if self._model.text is not None:
            text = description or ""
            use = "given" if text.strip() else "missing"
            tokens = tokenise(self._model.text.tokenizer, [text], self.config.max_text_tokens)
            token_ids, mask = torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.mask)
            is_cut = tokens.n_cut > 0
        logits = self._model(self._model.encode(pixels, token_ids, mask, n_rows=1))
        probabilities: list[float] = F.softmax(logits[0].double() / self.temperature, dim=-1).tolist()
        if not all(math.isfinite(p) for p in probabilities):
            raise UserError(f"the model {self.folder} gave no number for {image}", "train it again")
        ranked = sorted(zip(self.config.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
        return Prediction(str(image), hashlib.sha256(content).hexdigest(), dict(ranked), use, is_cut)


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
