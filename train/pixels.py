"""From photographs to packed pixels: decode and resize once, as the checkpoint's processor would, into one array."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from builders.decode import BadImageError, decode_rgb
from builders.errors import UserError
from builders.files import read_json, write_atomic
from train.mapped import new_array

PackedPixels = npt.NDArray[np.uint8]  # (n_images, height_px, width_px, 3)
_VERSION = 2  # of `resize_and_crop`: another one does not read what it packed
# Processors to which a size that is one number is the shorter side's, not both (`default_to_square` in transformers).
_INTEGER_IS_SHORTEST = ("Bit", "CLIP", "ChineseCLIP", "Levit", "MobileNet")


class PixelConfig(BaseModel):
    """How a checkpoint wants its pixels: resize, centre crop, then `(value * rescale_factor - mean) / std`.

    `resize` is `exact` (to `resize_px`, whatever the shape of the photograph) or `shortest` (the shorter side becomes
    `min(resize_px)`, then the centre is cut out). Sizes are (height, width). `resample` is Pillow's number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["exact", "shortest"]
    resize_px: tuple[int, int]
    crop_px: tuple[int, int]
    resample: Annotated[int, Field(ge=0, le=5)]
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_pixel_config(folder: Path) -> PixelConfig:
    """What the processor file in a checkpoint's folder asks for.

    Tiling (`crop_to_patches`, InternVL) is left out: a classifier sees one tile. Raises `UserError` for a folder
    without such a file and for geometry that gives images of differing shapes.
    """
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = folder / name
        if path.is_file():
            values = read_json(path)
            values = values if key is None else values.get(key)
            if values is not None:
                return _parse(values, path)
    raise UserError(
        f"{folder} has no preprocessor_config.json, so nothing says how its images are resized and normalised",
        "copy the file from the checkpoint that the weights came from",
    )


def _parse(values: dict[str, Any], path: Path) -> PixelConfig:
    mean, std = values.get("image_mean"), values.get("image_std")
    if "max_num_patches" in values:  # SigLIP 2 NaFlex: patches of each photograph's own shape, no array of pixels
        raise UserError(
            f"{path}: this checkpoint takes patches of differing shapes (max_num_patches), and pixels are packed at one"
            " size",
            "choose the same model at a fixed size: google/siglip2-base-patch16-224 for …-naflex",
        )
    if not values.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if mean is None or std is None or values.get("size") is None:
        raise UserError(f"{path} lacks 'size', 'image_mean' or 'image_std'", "write them into the file")
    kind: str = values.get("image_processor_type") or values.get("feature_extractor_type") or ""
    if kind.startswith("ConvNext"):
        values = _convnext(values)
    is_cropped = bool(values.get("do_center_crop", False))
    size: Any = values["size"]
    if isinstance(size, int):  # files of 2022 and before
        is_shortest = is_cropped and (not kind or kind.startswith(_INTEGER_IS_SHORTEST))
        size = {"shortest_edge": size} if is_shortest else {"height": size, "width": size}
    if set(size) == {"height", "width"}:
        resize, resize_px = "exact", (size["height"], size["width"])
    elif set(size) == {"shortest_edge"} and is_cropped:
        resize, resize_px = "shortest", (size["shortest_edge"], size["shortest_edge"])
    else:
        raise UserError(
            f"{path}: size {size} gives images of differing shapes; supported are height + width, "
            "and shortest_edge with do_center_crop",
            'write "size": {"height": …, "width": …} into the file',
        )
    crop: Any = values.get("crop_size") if is_cropped else None
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    return PixelConfig(
        resize=resize,
        resize_px=resize_px,
        crop_px=resize_px if crop is None else (crop["height"], crop["width"]),
        resample=values.get("resample", Image.Resampling.BILINEAR),
        rescale_factor=values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _convnext(values: dict[str, Any]) -> dict[str, Any]:
    """ConvNeXt's own way to state a size in everybody's: below 384 px the edge is cropped from a larger resize."""
    size: Any = values["size"]
    edge_px: int = size if isinstance(size, int) else size["shortest_edge"]
    square = {"height": edge_px, "width": edge_px}
    stated = {"resample": Image.Resampling.BICUBIC, **values}
    if edge_px >= 384:
        return {**stated, "size": square, "do_center_crop": False}
    resize_px = int(edge_px / values.get("crop_pct", 224 / 256))
    return {**stated, "size": {"shortest_edge": resize_px}, "do_center_crop": True, "crop_size": square}


def resize_and_crop(image: Image.Image, config: PixelConfig) -> PackedPixels:
    """The (height, width, 3) pixels of an upright RGB image, before normalisation."""
    height_px, width_px = config.resize_px
    if config.resize == "shortest":
        shortest_px = min(config.resize_px)
        width_px, height_px = (int(shortest_px * side / min(image.size)) for side in image.size)
    resized = image.resize((width_px, height_px), Image.Resampling(config.resample))
    crop_height_px, crop_width_px = config.crop_px
    left, top = (width_px - crop_width_px) // 2, (height_px - crop_height_px) // 2
    # Pillow pads with black where the crop is larger than the image, as the processors do.
    return np.asarray(resized.crop((left, top, left + crop_width_px, top + crop_height_px)), dtype=np.uint8)


def key_of_pixels(config: PixelConfig, image_sha256s: Sequence[str]) -> str:
    """16 hex digits over all that packed pixels depend on."""
    content = "\n".join([f"version {_VERSION}", config.model_dump_json(), *image_sha256s])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def pack_pixels(
    read_image: Callable[[int], bytes], n_images: int, config: PixelConfig, path: Path, on_image: Callable[[], None]
) -> PackedPixels:
    """The pixels of images `0 … n_images - 1`, memory-mapped from `path`, which is written first where it is missing.

    Measured on 720×480 JPEGs: decoding is 10 to 14 times slower than reading packed pixels, so it happens once.
    `on_image` is called after each. Raises `UserError` with the row's number on an image that cannot be decoded.
    """
    if not path.is_file():
        write_atomic(path, lambda part: _pack(read_image, n_images, config, part, on_image))
    return np.load(path, mmap_mode="r")


def _pack(
    read_image: Callable[[int], bytes], n_images: int, config: PixelConfig, part: Path, on_image: Callable[[], None]
) -> None:
    packed = new_array(part, (n_images, *config.crop_px, 3), np.uint8, "the cache of packed pixels")

    def decode(row: int) -> PackedPixels:
        try:
            image, _ = decode_rgb(read_image(row))
        except BadImageError as error:
            raise UserError(f"the image of row {row} cannot be decoded: {error}", "rebuild the dataset") from error
        return resize_and_crop(image, config)

    rows = iter(range(n_images))
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without the interpreter's lock
        start = 0
        while window := list(islice(rows, 256)):  # bounded: `map` would hold every decoded image at once
            for offset, pixels in enumerate(pool.map(decode, window)):
                packed[start + offset] = pixels
                on_image()
            start += len(window)
    packed.flush()
