"""A model folder through transformers: `import train.auto`, then `AutoModel` and `AutoProcessor` load it.

    import train.auto  # registers the classes below; nothing in the folder is code
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    logits = model(**processor(images=[photograph], text=[description])).logits

`folder` is local or on the Hub, and is never asked for code: `trust_remote_code` changes nothing.
https://huggingface.co/docs/transformers/custom_models
"""

import os
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from builders.decode import upright_rgb
from builders.errors import UserError
from builders.torch_repair import repair
from train.backbones import load_tokenizer, normalise
from train.model import MODEL_TYPE, FusionModel, ModelConfig, load_fusion_model, read_model_config, save_model
from train.pixels import resize_and_crop
from train.texts import tokenise

repair()  # before transformers looks for torchvision

from transformers import (  # noqa: E402
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoProcessor,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput  # noqa: E402

_OF_THE_HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token")
_WITHOUT_EFFECT = ("adapter_kwargs", "trust_remote_code", "_from_auto")


class FusionConfig(PreTrainedConfig):
    """`config.json` of a model folder as transformers reads it; `id2label` are its classes."""

    model_type = MODEL_TYPE

    def __post_init__(self, class_names: tuple[str, ...] = (), **kwargs: Any) -> None:
        self.class_names = tuple(class_names)
        self.id2label = dict(enumerate(self.class_names))
        self.label2id = {name: label for label, name in enumerate(self.class_names)}
        super().__post_init__(**kwargs)


class FusionForImageClassification(PreTrainedModel):
    """A fusion classifier behind the signature that models of transformers have.

    Probabilities are `softmax(logits / config.training["temperature"])`. Without text, a model that was trained with
    both modalities answers from the image alone.
    """

    config_class = FusionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: FusionConfig, fusion_model: FusionModel | None = None) -> None:
        if fusion_model is None:
            raise UserError(
                "a model of vl-dermnet is not made of a config alone: its backbones are trained ones",
                "AutoModel.from_pretrained(FOLDER)",
            )
        super().__init__(config)
        self.fusion_model = fusion_model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *_: Any, **kwargs: Any) -> Self:
        """The model in a folder or Hub repository, in evaluation mode, on the CPU; `dtype` as of torch.

        Raises `UserError` on a folder that is damaged or no model's, and on options that it does not have.
        """
        config, dtype = kwargs.pop("config", None), kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        folder = _folder(pretrained_model_name_or_path, kwargs)
        model, stated = load_fusion_model(folder)
        made = cls(config or FusionConfig(**stated.model_dump(mode="json")), model.to(dtype=dtype))
        return made.eval()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *_: Any, **kwargs: Any) -> None:
        """Write a model folder, as training does; options of transformers have no meaning for it."""
        if kwargs:
            raise UserError(f"a model folder is written one way; it has no {', '.join(kwargs)}")
        stated: Any = self.config
        save_model(self.fusion_model, Path(save_directory), stated.max_text_tokens, stated.training)

    def forward(
        self,
        pixel_values: Float[Tensor, "batch 3 height width"] | None = None,
        input_ids: Int[Tensor, "batch n_text"] | None = None,
        attention_mask: Int[Tensor, "batch n_text"] | Bool[Tensor, "batch n_text"] | None = None,
        labels: Int[Tensor, "batch"] | None = None,
    ) -> ImageClassifierOutput:
        """Logits, (batch, n_classes), and with `labels` the mean cross-entropy. Rows masked everywhere have no text."""
        reads_image = self.fusion_model.image is not None
        if reads_image and pixel_values is None:
            raise ValueError(f"a model of {self.fusion_model.name} reads the image: pixel_values are needed")
        given = pixel_values if reads_image else input_ids
        if given is None:
            raise ValueError(f"a model of {self.fusion_model.name} reads the text: input_ids are needed")
        n_rows = len(given)
        if self.fusion_model.text is not None and input_ids is None:
            input_ids, attention_mask = given.new_zeros(n_rows, 1).long(), given.new_zeros(n_rows, 1)
        if input_ids is not None and attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        mask = None if attention_mask is None else attention_mask.bool()
        logits = self.fusion_model(self.fusion_model.encode(pixel_values, input_ids, mask, n_rows))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=cast(Any, loss), logits=logits)


class FusionProcessor:
    """From photographs and descriptions to what the model takes, the same numbers that training saw."""

    def __init__(self, config: ModelConfig, tokenizer: Any) -> None:
        self.config = config
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """The processor of a model folder or Hub repository."""
        folder = _folder(pretrained_model_name_or_path, kwargs)
        config = read_model_config(folder)
        return cls(config, load_tokenizer(folder / "tokenizer") if config.text is not None else None)

    def __call__(
        self, images: Image.Image | list[Image.Image] | None = None, text: str | list[str] | None = None
    ) -> BatchFeature:
        """`pixel_values` (batch, 3, height, width), `input_ids` and `attention_mask` (batch, n): what the model reads.

        Photographs are turned upright and made RGB. An empty description is none. Raises `ValueError` where there are
        not as many descriptions as photographs.
        """
        photographs = [images] if isinstance(images, Image.Image) else list(images or [])
        texts = [text] if isinstance(text, str) else list(text or [])
        if photographs and texts and len(photographs) != len(texts):
            raise ValueError(f"{len(photographs)} images and {len(texts)} texts: give as many of each")
        made: dict[str, Any] = {}
        if self.config.pixels is not None and photographs:
            packed = np.stack([resize_and_crop(upright_rgb(image), self.config.pixels) for image in photographs])
            made["pixel_values"] = normalise(torch.from_numpy(packed), self.config.pixels)
        if self.tokenizer is not None and (texts or photographs):
            tokens = tokenise(self.tokenizer, texts or [""] * len(photographs), self.config.max_text_tokens)
            made["input_ids"] = torch.from_numpy(tokens.token_ids)
            made["attention_mask"] = torch.from_numpy(tokens.mask).long()
        return BatchFeature(made)


def _folder(source: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """The local folder of a model: itself, or its snapshot from the Hub without whatever could be code."""
    hub = {name: options[name] for name in _OF_THE_HUB if options.get(name) is not None}
    unknown = sorted(name for name in options if name not in (*_OF_THE_HUB, *_WITHOUT_EFFECT))
    if unknown:
        raise UserError(
            f"a model of vl-dermnet is loaded without the option {unknown[0]}", f"dtype, {', '.join(_OF_THE_HUB)}"
        )
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    return Path(snapshot_download(os.fspath(source), allow_patterns=patterns, **hub))


AutoConfig.register(MODEL_TYPE, FusionConfig)
AutoModel.register(FusionConfig, FusionForImageClassification)
AutoModelForImageClassification.register(FusionConfig, FusionForImageClassification)
AutoProcessor.register(FusionConfig, cast(Any, FusionProcessor))
