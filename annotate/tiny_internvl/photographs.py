"""The training set: sample photographs as the model's processor gives them, with their attributes as numbers."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from builders.sample.attributes import ATTRIBUTE_NAMES, Attributes, all_attributes
from builders.sample.photograph import Photograph, render_photograph
from builders.workers import WorkerDiedError, ordered_map

VALUES: dict[str, list[str]] = {name: sorted({getattr(a, name) for a in all_attributes()}) for name in ATTRIBUTE_NAMES}


@dataclass(frozen=True, slots=True)
class Photographs:
    """What the model learns from.

    `pixels`: (n, 3, side, side) uint8, after the processor's resize; `values`: (n, attributes) int64, places in
    `VALUES`; `cover`: (n, 32, 32) uint8, where lesions are.
    """

    pixels: Tensor
    values: Tensor
    cover: Tensor
    attributes: list[Attributes]
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.attributes)

    @property
    def n_values(self) -> list[int]:
        """How many values each attribute has, in `ATTRIBUTE_NAMES`' order."""
        return [len(VALUES[name]) for name in ATTRIBUTE_NAMES]

    def pixel_values(self, rows: Tensor) -> Tensor:
        """Normalised pixels of some rows, (batch, 3, side, side) float32."""
        return (self.pixels[rows].float() / 255 - self.mean) / self.std


def render_photographs(processor: Any, n_images: int, seed: int) -> Photographs:
    """Render, store as JPEG, open and resize `n_images` photographs, in two processes; prints a line per 1000."""
    images = processor.image_processor
    side = images.size["height"]
    pixels = torch.empty(n_images, 3, side, side, dtype=torch.uint8)
    cover = torch.empty(n_images, 32, 32, dtype=torch.uint8)
    attributes: list[Attributes] = []
    numbers = ((seed, number) for number in range(n_images))
    for photograph in ordered_map(_render, numbers, n_workers=2, ahead=64):
        if isinstance(photograph, WorkerDiedError):
            raise photograph
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(photograph.jpeg))).convert("RGB")
        resized = images(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
        pixels[len(attributes)] = resized[0].to(torch.uint8)
        cover[len(attributes)] = torch.tensor(photograph.cover)
        attributes.append(photograph.attributes)
        if len(attributes) % 1000 == 0:
            print(f"rendered {len(attributes)}/{n_images}", flush=True)
    return Photographs(
        pixels=pixels,
        values=torch.tensor([[VALUES[name].index(getattr(a, name)) for name in ATTRIBUTE_NAMES] for a in attributes]),
        cover=cover,
        attributes=attributes,
        mean=torch.tensor(np.array(images.image_mean, dtype=np.float32)).view(3, 1, 1),
        std=torch.tensor(np.array(images.image_std, dtype=np.float32)).view(3, 1, 1),
    )


def _render(which: tuple[int, int]) -> Photograph:
    return render_photograph(*which)
