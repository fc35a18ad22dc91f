"""What all runs of an experiment share: pristine backbones, packed pixels, token ids and cached features."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from builders.errors import UserError
from train.backbones import ImageBackbone, TextBackbone, load_image_backbone, load_text_backbone
from train.config import TrainConfig
from train.data import Examples
from train.frozen_blocks import FrozenBlocks, cache_frozen_blocks
from train.fusion import FUSIONS
from train.given import given_inputs
from train.given_tower import GivenFeatures
from train.inputs import CachedInputs, Inputs, LiveInputs, cache_image_features, cache_text_features, resident
from train.pixels import PackedPixels, key_of_pixels, pack_pixels
from train.progress import progress_bar, say
from train.texts import tokenise


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runs share: pristine backbones and the inputs."""

    image: ImageBackbone | GivenFeatures | None
    text: TextBackbone | GivenFeatures | None
    inputs: Inputs


def load_parts(
    config: TrainConfig, examples: Examples, models: set[str], device: torch.device, console: Console
) -> Parts:
    """Load what `models` need: backbones, packed pixels, token ids and, with frozen backbones, features.

    Of an encoder whose last blocks alone are trained, what enters them, where `config` says that it is kept.
    """

    def tell(message: str) -> None:
        say(console, message)

    if config.features:
        needs = [(FUSIONS[name].uses_image, FUSIONS[name].uses_text, name) for name in sorted(models)]
        for option, column, names in (("first", 0, config.image_features), ("second", 1, config.text_features)):
            using = [need[2] for need in needs if need[column]]
            if using and not names:
                raise UserError(f"{', '.join(using)}: no --{option} features are given to read", f"--{option} ARRAY")
        return Parts(*given_inputs(config, device))
    cache = config.out / "cache"
    image, pixels, text, texts = None, None, None, None
    n_rows = len(examples.image_ids)
    pixels_key = ""
    if any(FUSIONS[name].uses_image for name in models):
        image = load_image_backbone(config.image_backbone, config.image_revision).to(device).eval()
        pixels_key = key_of_pixels(image.pixels, examples.image_sha256s)
        pixels = _pack(config, examples, image, cache / f"pixels-{pixels_key}.npy", console)
    if any(FUSIONS[name].uses_text for name in models):
        text = load_text_backbone(config.text_backbone, config.text_revision).to(device).eval()
        most = min(config.max_text_tokens, text.tokenizer.model_max_length)
        texts = tokenise(text.tokenizer, examples.texts, most)
        if texts.n_cut:
            say(console, f"{texts.n_cut} descriptions are longer than {most} tokens and were cut")
    if not config.is_frozen:
        kept = None
        if config.caches_frozen_blocks and config.image_layers and image is not None and pixels is not None:
            n_views = 2 if config.is_augmented else 1
            with progress_bar(console, "frozen blocks", n_views * n_rows) as advance:
                states = cache_frozen_blocks(
                    image, config.image_layers, pixels, pixels_key, n_views, cache, advance, tell
                )
            on_device = resident(states, device)
            kept = FrozenBlocks(states if on_device is None else on_device, config.image_layers, device)
        return Parts(image, text, LiveInputs(pixels, texts, device, config.is_augmented, kept))
    image_features = text_features = None
    if image is not None and pixels is not None:
        with progress_bar(console, "image features", n_rows) as advance:
            image_features = cache_image_features(image, pixels, pixels_key, cache, advance, tell)
    if text is not None and texts is not None:
        with progress_bar(console, "text features", n_rows) as advance:
            text_features = cache_text_features(text, texts, cache, advance, tell)
    mask = None if texts is None else texts.mask
    return Parts(image, text, CachedInputs(image_features, text_features, mask, device, pixels))


def _pack(config: TrainConfig, examples: Examples, image: ImageBackbone, path: Path, console: Console) -> PackedPixels:
    if examples.read_image is None:
        raise UserError(
            f"the dataset {config.dataset} holds no images, and a model that sees them is to be trained",
            "--images FOLDER (the photographs that were described), or --model text_only",
        )
    n_images = len(examples.image_ids)
    with progress_bar(console, "decode images", n_images) as advance:
        return pack_pixels(examples.read_image, n_images, image.pixels, path, lambda: advance(1))
