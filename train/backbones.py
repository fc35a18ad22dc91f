"""Any AutoModel vision or text encoder as a module from pixels or token ids to tokens and one pooled vector."""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from builders.bundled import BUNDLED
from builders.errors import UserError
from builders.torch_repair import repair
from train.pixels import PixelConfig, read_pixel_config

Pooling = Literal["first", "mean"]

# Of a checkpoint with both modalities (CLIP, SigLIP 2, InternVL): the attribute that holds each.
_IMAGE_PARTS = ("vision_tower", "vision_model")
_TEXT_PARTS = ("language_model", "text_model")
_CLASS_TOKENS = ("cls_token", "class_embedding")


class BackboneConfig(BaseModel):
    """Where a backbone came from and how its output is read.

    `revision` is the Hub's commit. `weights` is the `weights_key` before training: a branch moves, and a folder may be
    replaced. `pooling` is `first` (the class token, where pre-training gave it a meaning) or `mean` over the tokens.
    `skips_first` drops a class token that pre-training left without one. `dim` is the width of a token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    revision: str | None
    weights: str | None = None  # not of features from a file, and not in older model folders
    architecture: str
    pooling: Pooling
    skips_first: bool
    dim: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a backbone says of a batch: (batch, n, dim) tokens, their (batch, dim) summary."""

    tokens: Float[Tensor, "batch n dim"]
    pooled: Float[Tensor, "batch dim"]


class ImageBackbone(nn.Module):
    """A vision encoder behind packed pixels.

    Pooled is the class token where the encoder was trained to use one (ViT, DeiT, DINOv2, CLIP); the mean over the
    patches where it has none (SigLIP, ConvNeXt) or where its class token is thrown away in pre-training (InternVL:
    its language model reads patches only, so that token is dropped here as well).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: BackboneConfig, pixels: PixelConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.pixels = pixels
        self.register_buffer("mean", _per_channel(pixels.mean), persistent=False)
        self.register_buffer("std", _per_channel(pixels.std), persistent=False)

    def normalise(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
        """What the checkpoint's image processor would hand to the model."""
        return _normalise(pixels, self.pixels.rescale_factor, self.mean, self.std)

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"] | Float[Tensor, "batch 3 height width"]) -> Encoded:
        """Patch (and class) tokens, and the pooled vector; of packed pixels, or of what `normalise` made of them."""
        normalised = self.normalise(pixels) if pixels.dtype == torch.uint8 else pixels
        hidden: Tensor = self.model(pixel_values=normalised).last_hidden_state
        if hidden.ndim == 4:  # convolutional: (batch, dim, rows, columns)
            hidden = hidden.flatten(2).transpose(1, 2)
        tokens = hidden[:, 1:] if self.config.skips_first else hidden  # (batch, n, dim)
        return Encoded(tokens, tokens[:, 0] if self.config.pooling == "first" else tokens.mean(dim=1))


class TextBackbone(nn.Module):
    """A text encoder behind token ids; an encoder-decoder gives its encoder.

    Pooled is the class token where the tokenizer puts one in front and the encoder looks both ways (BERT); else the
    mean over the real tokens. A decoder's last token is the usual alternative: on the sample notes, with the bundled
    model's text part, a linear probe of either scores 92.5 %, and the mean does not hang on how a text ends.
    """

    def __init__(self, model: nn.Module, config: BackboneConfig, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.tokenizer = tokenizer

    def forward(self, token_ids: Int[Tensor, "batch n"], mask: Bool[Tensor, "batch n"]) -> Encoded:
        """Word tokens, zeros where `mask` is False, and the pooled vector; all zeros for a row without text."""
        attended = mask.clone()
        attended[:, 0] = True  # a row without text attends to something, or its softmax is NaN; zeroed below
        hidden: Tensor = self.model(input_ids=token_ids, attention_mask=attended.long()).last_hidden_state
        tokens = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)  # (batch, n, dim)
        if self.config.pooling == "first":
            return Encoded(tokens, tokens[:, 0])
        return Encoded(tokens, tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1))


def normalise(
    pixels: UInt8[Tensor, "batch height width 3"], config: PixelConfig
) -> Float[Tensor, "batch 3 height width"]:
    """Packed pixels as the checkpoint's image processor would hand them to the model."""
    return _normalise(pixels, config.rescale_factor, _per_channel(config.mean), _per_channel(config.std))


def _normalise(pixels: Tensor, rescale_factor: float, mean: Tensor, std: Tensor) -> Tensor:
    # One plane per channel: a patch embedding on the permuted view is slower on a CPU. In place: the new tensor is
    # nobody else's, and three copies of it would be made otherwise.
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.mul_(rescale_factor).sub_(mean).div_(std)


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)


def weights_key(model: nn.Module) -> str:
    """16 hex digits over the names and bytes of a model's weights.

    Not a pooler's: it is not read, and where a checkpoint has none it is drawn anew at each loading.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if "pooler" in name:
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encoder_key(model: nn.Module) -> str:
    """16 hex digits over the weights and the configuration: equal weights with other numbers of heads see otherwise.

    Another version of transformers may write another configuration, so this is for what can be computed again.
    """
    config = getattr(model, "config", None)
    values: dict[str, Any] = {} if config is None else config.to_dict()
    values = {name: value for name, value in values.items() if name not in ("_name_or_path", "transformers_version")}
    said = json.dumps(values, default=str)
    return hashlib.sha256(f"{weights_key(model)} {said}".encode()).hexdigest()[:16]


def load_image_backbone(source: str, revision: str | None = None) -> ImageBackbone:
    """The vision encoder of a checkpoint folder or Hub id; of a multimodal checkpoint, its vision part."""
    folder, whole = _load("image", source, revision)
    part = _part_of(whole, _IMAGE_PARTS)
    model = part or whole
    has_class_token = any(name.endswith(_CLASS_TOKENS) for name, _ in model.named_parameters())
    select = getattr(whole.config, "vision_feature_select_strategy", None) if part is not None else None
    config = BackboneConfig(
        source=_named(source),
        revision=_commit_of(folder) or revision,
        weights=weights_key(model),
        architecture=type(model).__name__,
        pooling="first" if has_class_token and select != "default" else "mean",
        skips_first=has_class_token and select == "default",
        dim=_width_of(model, "image", source),
    )
    return ImageBackbone(model, config, read_pixel_config(folder))


def load_text_backbone(source: str, revision: str | None = None) -> TextBackbone:
    """The text encoder and tokenizer of a checkpoint folder or Hub id; of a multimodal checkpoint, its text part."""
    folder, whole = _load("text", source, revision)
    model = _part_of(whole, _TEXT_PARTS) or whole
    tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = min(tokenizer.model_max_length, _n_positions(model))
    example: list[int] = tokenizer("word")["input_ids"]
    starts_with_class = tokenizer.cls_token_id is not None and example[0] == tokenizer.cls_token_id
    config = BackboneConfig(
        source=_named(source),
        revision=_commit_of(folder) or revision,
        weights=weights_key(model),
        architecture=type(model).__name__,
        pooling="first" if starts_with_class and not _is_causal(model) else "mean",
        skips_first=False,
        dim=_width_of(model, "text", source),
    )
    return TextBackbone(model, config, tokenizer)


def load_model(folder: Path, architecture: str) -> Any:
    """The model saved in a local folder, of a class of transformers: safetensors only, no code from it, no network.

    The class is named because `AutoModel` does not know every part of a multimodal checkpoint (`SiglipTextModel`).
    """
    library = _transformers()
    kind = getattr(library, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, library.PreTrainedModel):
        raise UserError(f"{folder}: transformers {library.__version__} has no model class '{architecture}'")
    loader: Any = kind
    return loader.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer saved in a local folder."""
    return _transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _transformers() -> Any:
    """The library, repaired where torchvision does not fit torch, and without its own progress bars."""
    repair()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def _load(kind: str, source: str, revision: str | None) -> tuple[Path, Any]:
    """A checkpoint's local folder and its model; every weight but a pooler's must come from the checkpoint."""
    folder = _fetch(kind, source, revision)
    library = _transformers()
    options = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loader = library.AutoModelForTextEncoding if config.is_encoder_decoder else library.AutoModel  # T5: its encoder
        model, found = loader.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the {kind} backbone '{source}' cannot be loaded: {error}",
            "choose a checkpoint that AutoModel loads from safetensors without code of its own",
        ) from error
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        raise UserError(
            f"the {kind} backbone '{source}' lacks {len(missing)} of its weights, the first is {missing[0]}",
            "choose a complete checkpoint",
        )
    return folder, model


def _commit_of(folder: Path) -> str | None:
    """The commit that a folder of huggingface_hub's cache holds; None for any other folder."""
    return folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) and folder.parent.name == "snapshots" else None


def _named(source: str) -> str:
    """What a saved model says of its backbone's origin: a Hub id, or a folder's name without its place."""
    return Path(source).name if Path(source).is_dir() else source


def _fetch(kind: str, source: str, revision: str | None) -> Path:
    folder = BUNDLED.get(source, Path(source))
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.count("/") != 1:
        raise UserError(
            f"no {kind} backbone at '{source}': neither {', '.join(BUNDLED)}, nor a folder, nor a Hub id (OWNER/NAME)",
            f"--{kind}-backbone FOLDER, or --{kind}-backbone OWNER/NAME",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"the {kind} backbone '{source}' cannot be fetched from the Hub: {error}",
            f"check the name and the network, or give a local folder: --{kind}-backbone FOLDER",
        ) from error


def _part_of(model: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(model, name) for name in names if isinstance(getattr(model, name, None), nn.Module)), None)


def _n_positions(model: Any) -> int:
    """How many tokens the encoder has positions for, whatever its tokenizer says; very many where it learns none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(("position_embeddings", "position_embedding")):
            n_before = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from behind it
            return module.num_embeddings - n_before
    return sys.maxsize


def _width_of(model: Any, kind: str, source: str) -> int:
    width = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None)
    if width is None and getattr(model.config, "hidden_sizes", None):  # convolutional stages
        width = model.config.hidden_sizes[-1]
    if width is None:
        raise UserError(f"the {kind} backbone '{source}' ({type(model).__name__}) does not tell its width")
    return int(width)


@torch.inference_mode()
def _is_causal(model: nn.Module) -> bool:
    """Whether a token's state ignores what comes after it: asked of the model itself, for any architecture."""
    was_training = model.training
    model.eval()
    first, second = (
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
        for ids in (torch.tensor([[3, 4, 5]]), torch.tensor([[3, 6, 7]]))
    )
    model.train(was_training)
    return bool(torch.allclose(first, second))
