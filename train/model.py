"""Backbones, feature scaling and a fusion as one model, and the folder that it is saved to and loaded from."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from builders.errors import UserError
from builders.files import read_json, write_json
from train.backbones import (
    BackboneConfig,
    Encoded,
    ImageBackbone,
    TextBackbone,
    encoder_key,
    load_model,
    load_tokenizer,
)
from train.features import Features, Scaling
from train.fusion import FUSIONS
from train.given_tower import ARCHITECTURE, GivenFeatures
from train.model_card import model_card
from train.pixels import PixelConfig

FORMAT = "vl-dermnet-model"
FORMAT_VERSION = 1
MODEL_TYPE = "vl-dermnet"  # by which transformers finds the classes of train/auto.py


class FusionModel(nn.Module):
    """A fusion classifier: what its fusion does not use (`uses_image`, `uses_text`) it does not hold.

    `encode` turns pixels and token ids into features; `forward` turns features into logits, so that frozen backbones
    run once and their features serve every epoch, head and seed.
    """

    def __init__(
        self,
        name: str,
        class_names: tuple[str, ...],
        image: ImageBackbone | GivenFeatures | None,
        text: TextBackbone | GivenFeatures | None,
        hidden_dims: tuple[int, ...] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.class_names = class_names
        self.image = image if FUSIONS[name].uses_image else None
        self.text = text if FUSIONS[name].uses_text else None
        image_dim = 0 if self.image is None else self.image.config.dim
        text_dim = 0 if self.text is None else self.text.config.dim
        self.uses_tokens = FUSIONS[name].uses_tokens
        self.scaling = nn.ModuleDict(
            {
                "image_tokens": Scaling(image_dim if self.uses_tokens else 0),
                "image_pooled": Scaling(image_dim),
                "text_tokens": Scaling(text_dim if self.uses_tokens else 0),
                "text_pooled": Scaling(text_dim),
            }
        )
        self.fusion = FUSIONS[name](image_dim, text_dim, len(class_names), hidden_dims, dropout)
        self.hidden_dims, self.dropout = hidden_dims, dropout

    def encode(
        self,
        pixels: UInt8[Tensor, "batch height width 3"] | Float[Tensor, "batch 3 height width"] | None,
        token_ids: Int[Tensor, "batch n_text"] | None,
        text_mask: Bool[Tensor, "batch n_text"] | None,
        n_rows: int,
    ) -> Features:
        """Run the backbones that this model has on a batch of `n_rows`; what it does not use gets width zero.

        Pixels are packed, or normalised already.
        """
        features = no_features(n_rows, next(self.fusion.parameters()).device)
        if isinstance(self.image, ImageBackbone) and pixels is not None:
            image: Encoded = self.image(pixels)
            features = replace(features, image_tokens=self._used(image.tokens), image_pooled=image.pooled)
        if isinstance(self.text, TextBackbone) and token_ids is not None and text_mask is not None:
            text: Encoded = self.text(token_ids, text_mask)
            features = replace(
                features, text_tokens=self._used(text.tokens), text_pooled=text.pooled, text_mask=text_mask
            )
        return features

    def _used(self, tokens: Tensor) -> Tensor:
        return tokens if self.uses_tokens else tokens[..., :0]

    def forward(self, features: Features) -> Float[Tensor, "batch n_classes"]:
        """One logit per class, from features as `encode` gives them."""
        mask = features.text_mask
        has_text = mask.any(dim=1, keepdim=True)  # (batch, 1)
        features = replace(
            features,
            image_pooled=self.scaling["image_pooled"](features.image_pooled),
            text_pooled=self.scaling["text_pooled"](features.text_pooled).masked_fill_(~has_text, 0.0),
        )
        image_tokens, text_tokens = self.scaling["image_tokens"], self.scaling["text_tokens"]
        if self.fusion.scales_tokens:
            return self.fusion(features, image_tokens, text_tokens)
        return self.fusion(
            replace(
                features,
                image_tokens=image_tokens(features.image_tokens),
                text_tokens=text_tokens(features.text_tokens).masked_fill_(~mask.unsqueeze(-1), 0.0),
            )
        )


def no_features(n_rows: int, device: torch.device) -> Features:
    """Features of width zero, to be filled with those modalities that a model uses."""
    tokens, pooled = torch.zeros(n_rows, 0, 0, device=device), torch.zeros(n_rows, 0, device=device)
    return Features(tokens, pooled, tokens, pooled, torch.zeros(n_rows, 0, dtype=torch.bool, device=device))


class ModelConfig(BaseModel):
    """`config.json` of a model folder: all that is needed to build the model again, and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    model_type: str = MODEL_TYPE
    fusion: str
    class_names: tuple[str, ...]
    image: BackboneConfig | None
    pixels: PixelConfig | None
    text: BackboneConfig | None
    max_text_tokens: int
    hidden_dims: tuple[int, ...] = ()
    dropout: float = 0.0
    training: dict[str, Any]
    notice: str = "Research model. Not a medical device; not for clinical use."


def save_model(
    model: FusionModel,
    folder: Path,
    max_text_tokens: int,
    training: dict[str, Any],
    frozen_backbones: Path | None = None,
) -> None:
    """Write the model's folder, whole or not at all.

    `frozen_backbones` is a folder shared by an experiment: unchanged backbones are written to it once and hard-linked
    from every model folder, so thirty models of one experiment do not hold thirty copies.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if isinstance(model.image, ImageBackbone):
        _save_backbone(model.image.model, part / "image_backbone", frozen_backbones)
    if isinstance(model.text, TextBackbone):
        _save_backbone(model.text.model, part / "text_backbone", frozen_backbones)
        model.text.tokenizer.save_pretrained(part / "tokenizer")
    head = {**_prefixed("fusion", model.fusion), **_prefixed("scaling", model.scaling)}
    save_file(head, part / "fusion.safetensors", metadata={"format": "pt"})
    config = ModelConfig(
        fusion=model.name,
        class_names=model.class_names,
        image=None if model.image is None else model.image.config,
        pixels=None if model.image is None else model.image.pixels,
        text=None if model.text is None else model.text.config,
        max_text_tokens=max_text_tokens,
        hidden_dims=model.hidden_dims,
        dropout=model.dropout,
        training=training,
    )
    values = config.model_dump(mode="json")
    write_json(part / "config.json", values)
    (part / "README.md").write_text(model_card(values), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped before its predictions were written
    part.rename(folder)


def _save_backbone(backbone: Any, folder: Path, shared: Path | None) -> None:
    if shared is None:
        backbone.save_pretrained(folder)
        return
    original = shared / f"{folder.name}-{encoder_key(backbone)}"  # a checkpoint may change under its name
    if not original.is_dir():
        part = original.with_name(f".{original.name}.{os.getpid()}.part")
        backbone.save_pretrained(part)
        try:
            part.rename(original)
        except OSError:
            shutil.rmtree(part)
            if not original.is_dir():  # written meanwhile by a process that trains another run
                raise
    folder.mkdir()
    for file in original.iterdir():
        try:
            (folder / file.name).hardlink_to(file)
        except OSError:  # a file system without hard links
            shutil.copyfile(file, folder / file.name)


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def read_model_config(folder: Path) -> ModelConfig:
    """The parsed `config.json` of a model folder. Raises `UserError` where the folder is not one."""
    path = folder / "config.json"
    if not path.is_file():
        inside = sorted(found.parent for found in folder.glob("models/*/config.json"))
        fix = f"name one of this experiment's models: {inside[0]}" if inside else "vl-dermnet train DATASET --out EXP"
        raise UserError(f"{folder} is not a model folder: it holds no config.json", fix)
    try:
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
            raise UserError(
                f"{path} does not describe a model of vl-dermnet (its \"format\" is not '{FORMAT}')",
                "name a folder below models/ of an experiment: EXP/models/NAME",
            )
        config = ModelConfig.model_validate(values)
    except (ValueError, ValidationError) as error:
        raise UserError(f"{path} cannot be read: {error}", "train the model again, or copy the folder again") from error
    if config.format_version != FORMAT_VERSION or config.fusion not in FUSIONS:
        raise UserError(
            f"{path}: format version {config.format_version}, fusion '{config.fusion}'; this program reads version "
            f"{FORMAT_VERSION} and {', '.join(FUSIONS)}",
            "use the version of vl-dermnet that wrote it",
        )
    return config


def load_fusion_model(folder: Path, needs_backbones: bool = True) -> tuple[FusionModel, ModelConfig]:
    """The model in a folder, ready to predict: safetensors only, no network, no code from the folder.

    With `needs_backbones` a head on features from a file, which has none, is refused with a `UserError`.
    """
    config = read_model_config(folder)
    parts = (config.image, config.text)
    given = [part.source for part in parts if part is not None and part.architecture == ARCHITECTURE]
    if given and needs_backbones:
        raise UserError(
            f"the model in {folder} is a head on features from a file ({', '.join(given)}): it has no backbones to see "
            "photographs with",
            "vl-dermnet train DATASET --out EXP --frozen --image-backbone ID",
        )
    try:
        image: ImageBackbone | GivenFeatures | None
        text: TextBackbone | GivenFeatures | None
        image, text = (None if part is None else GivenFeatures((part.source,), part.dim) for part in parts)
        if not given and config.image is not None and config.pixels is not None:
            image = ImageBackbone(
                load_model(folder / "image_backbone", config.image.architecture), config.image, config.pixels
            )
        if not given and config.text is not None:
            tokenizer = load_tokenizer(folder / "tokenizer")
            text = TextBackbone(load_model(folder / "text_backbone", config.text.architecture), config.text, tokenizer)
        model = FusionModel(config.fusion, config.class_names, image, text, config.hidden_dims, config.dropout)
        head = load_file(folder / "fusion.safetensors")
        for prefix, module in (("fusion", model.fusion), ("scaling", model.scaling)):
            own = {name.removeprefix(f"{prefix}."): t for name, t in head.items() if name.startswith(f"{prefix}.")}
            module.load_state_dict(own)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"the model folder {folder} is damaged: {error}", "copy or train it again") from error
    return model.eval(), config
