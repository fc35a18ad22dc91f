"""Backbones with random weights and data to train them on, made in memory: for benchmarks and for quick tests."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from builders.torch_repair import repair
from train.backbones import BackboneConfig, ImageBackbone, TextBackbone
from train.data import Split
from train.pixels import PixelConfig
from train.texts import TokenisedTexts

CLASS_NAMES = ("macule", "papule", "plaque", "wheal")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a ViT and a BERT, and of what goes into them."""

    image_px: int
    patch_px: int
    n_text_tokens: int
    vocabulary: int
    dim: int
    n_layers: int
    n_heads: int
    dropout: float = 0.1  # of BERT; ViT has none, as published


SHAPES: dict[str, Shape] = {
    "tiny": Shape(image_px=16, patch_px=8, n_text_tokens=6, vocabulary=20, dim=16, n_layers=2, n_heads=2),
    "mini": Shape(image_px=32, patch_px=8, n_text_tokens=12, vocabulary=200, dim=64, n_layers=2, n_heads=4),
    "light": Shape(image_px=96, patch_px=16, n_text_tokens=32, vocabulary=2000, dim=192, n_layers=4, n_heads=3),
    "small": Shape(image_px=224, patch_px=16, n_text_tokens=64, vocabulary=2000, dim=192, n_layers=4, n_heads=3),
    "base": Shape(image_px=224, patch_px=16, n_text_tokens=128, vocabulary=30522, dim=768, n_layers=12, n_heads=12),
}


def random_backbones(shape: Shape, seed: int = 0) -> tuple[ImageBackbone, TextBackbone]:
    """A ViT and a BERT of transformers, of this shape, with weights that are a function of `seed`."""
    repair()
    import transformers

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "intermediate_size": 4 * shape.dim,
    }
    vit = transformers.ViTConfig(image_size=shape.image_px, patch_size=shape.patch_px, **sizes)
    bert = transformers.BertConfig(
        vocab_size=shape.vocabulary,
        max_position_embeddings=512,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        **sizes,
    )
    size_px = (shape.image_px, shape.image_px)
    half = (0.5, 0.5, 0.5)
    pixels = PixelConfig(
        resize="exact", resize_px=size_px, crop_px=size_px, resample=2, rescale_factor=1 / 255, mean=half, std=half
    )

    def described(architecture: str) -> BackboneConfig:
        return BackboneConfig(
            source="random",
            revision=None,
            architecture=architecture,
            pooling="first",
            skips_first=False,
            dim=shape.dim,
        )

    image = transformers.ViTModel(vit, add_pooling_layer=False)
    text = transformers.BertModel(bert, add_pooling_layer=False)
    return ImageBackbone(image, described("ViTModel"), pixels), TextBackbone(text, described("BertModel"), None)


def random_image_backbone() -> ImageBackbone:
    """DINOv2-S as published, 22 M parameters, with made-up weights: for the speed of computing features."""
    repair()
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=224, patch_size=14
    )
    size_px, half = (224, 224), (0.5, 0.5, 0.5)
    pixels = PixelConfig(
        resize="exact", resize_px=size_px, crop_px=size_px, resample=3, rescale_factor=1 / 255, mean=half, std=half
    )
    described = BackboneConfig(
        source="random", revision=None, architecture="Dinov2Model", pooling="first", skips_first=False, dim=384
    )
    return ImageBackbone(transformers.Dinov2Model(config), described, pixels)


def learnable_data(
    shape: Shape, n_rows: int, seed: int = 0, with_pixels: bool = True
) -> tuple[npt.NDArray[np.uint8], TokenisedTexts, npt.NDArray[np.int64], Split]:
    """Noise with a class's hue in half of the images, words with a class's word in half of the texts; and splits.

    So both modalities tell something that the other does not, and a quarter of the rows can only be guessed. Texts are
    of a half to the whole of their length. Without pixels there are none, and the rest is not the same as with them.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASS_NAMES), n_rows)
    side_px = shape.image_px if with_pixels else 0
    pixels = rng.integers(0, 200, (n_rows, side_px, side_px, 3), dtype=np.uint8)
    hues = np.array([[50, 0, 0], [0, 50, 0], [0, 0, 50], [30, 30, 0]], dtype=np.uint8)
    shows = rng.random(n_rows) < 0.5
    pixels[shows] += hues[labels[shows], None, None]
    first_word = len(CLASS_NAMES) + 2  # 0 pads, 1 is the class token
    token_ids = rng.integers(first_word, shape.vocabulary, (n_rows, shape.n_text_tokens))
    token_ids[:, 0] = 1
    tells = rng.random(n_rows) < 0.5
    token_ids[tells, 1] = labels[tells] + 2
    lengths = rng.integers(shape.n_text_tokens // 2, shape.n_text_tokens + 1, n_rows)
    mask = np.arange(shape.n_text_tokens) < lengths[:, None]
    n_train, n_validation = int(0.7 * n_rows), int(0.1 * n_rows)
    rows = np.arange(n_rows)
    split = Split(rows[:n_train], rows[n_train : n_train + n_validation], rows[n_train + n_validation :])
    return pixels, TokenisedTexts(token_ids * mask, mask, 0), labels, split
