"""train/pixels.py: packed pixels are what the checkpoint's own processor makes, decoded once, augmented repeatably."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from builders.errors import UserError
from builders.torch_repair import repair
from train.backbones import BackboneConfig, ImageBackbone
from train.pixels import PixelConfig, pack_pixels, read_pixel_config, resize_and_crop

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SQUARE = {"height": 56, "width": 56}
PROCESSORS = {
    "ViT": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 2, **HALF},
    "ViT of 2022": {"image_processor_type": "ViTImageProcessor", "size": 56, "resample": 2, **HALF},
    "DINOv2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 64},
        "do_center_crop": True,
        "crop_size": SQUARE,
        "resample": 3,
        **IMAGENET,
    },
    "CLIP of 2021": {
        "image_processor_type": "CLIPImageProcessor",
        "size": 56,
        "do_center_crop": True,
        "crop_size": 56,
        "resample": 3,
        **IMAGENET,
    },
    "DeiT": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 64, "width": 64},
        "do_center_crop": True,
        "crop_size": SQUARE,
        "resample": 3,
        **IMAGENET,
    },
    "DeiT of 2021": {
        "feature_extractor_type": "DeiTFeatureExtractor",
        "size": 64,
        "do_center_crop": True,
        "crop_size": 56,
        "resample": 3,
        **IMAGENET,
    },
    "ConvNeXt below 384": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 56},
        "crop_pct": 0.875,
        "resample": 3,
        **IMAGENET,
    },
    "ConvNeXt of 2022": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 56, "resample": 3, **IMAGENET},
    "ConvNeXt from 384": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "resample": 3,
        **IMAGENET,
    },
    "SigLIP 2": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": 2, **HALF},
    "SigLIP": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": 3, **HALF},
    "crop larger than image": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 48, "width": 70},
        "resample": 3,
        **IMAGENET,
    },
}


BACKBONE = BackboneConfig(source="x", revision=None, architecture="X", pooling="mean", skips_first=False, dim=1)


def photograph(width_px, height_px, seed=0):
    """A smooth picture with an edge: noise alone would hide a shift, a flat one a wrong filter."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = np.array(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC))
    image[height_px // 3 : height_px // 2, width_px // 4 : width_px // 3] = (250, 10, 60)
    return Image.fromarray(image)


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def write_processor(folder, values):
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


# Of 256 levels: the two backends clip bicubic overshoots at different moments, so they differ from each other.
@pytest.mark.parametrize(("backend", "most", "on_average"), [("pil", 0.01, 0.01), ("torchvision", 6.01, 0.5)])
@pytest.mark.parametrize("size_px", [(101, 67), (60, 90), (56, 56), (30, 200), (64, 40)])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_equal_those_of_the_checkpoints_processor(tmp_path, name, size_px, backend, most, on_average):
    repair()
    from transformers import AutoImageProcessor
    from transformers.utils import is_torchvision_available

    if backend == "torchvision" and not is_torchvision_available():
        pytest.skip("torchvision is not installed: transformers would compare with Pillow's backend once more")
    image = photograph(*size_px)
    config = read_pixel_config(write_processor(tmp_path, PROCESSORS[name]))
    backbone = ImageBackbone(torch.nn.Identity(), BACKBONE, config)
    ours = backbone.normalise(torch.from_numpy(resize_and_crop(image, config).copy()).unsqueeze(0))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
    assert processor.backend == backend  # and no other that was silently taken in its place
    levels = ((ours - processor(image, return_tensors="pt")["pixel_values"]) * backbone.std * 255).abs()
    assert levels.max() <= most
    assert levels.mean() <= on_average


def test_a_multimodal_processor_file_is_read_and_its_tiles_are_left_out(tmp_path):
    image_processor = {"image_processor_type": "GotOcr2ImageProcessor", "size": SQUARE, "crop_to_patches": True, **HALF}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {**image_processor, "resample": 3}}))
    config = read_pixel_config(tmp_path)
    assert (config.resize, config.crop_px, config.resample) == ("exact", (56, 56), 3)


def test_a_folder_without_a_processor_says_what_is_missing(tmp_path):
    with pytest.raises(UserError) as raised:
        read_pixel_config(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} has no preprocessor_config.json, so nothing says how its images are resized and normalised\n"
        "  fix: copy the file from the checkpoint that the weights came from"
    )


def test_a_size_that_gives_differing_shapes_is_refused(tmp_path):
    write_processor(tmp_path, {"size": {"shortest_edge": 800, "longest_edge": 1333}, **IMAGENET})
    with pytest.raises(UserError, match="gives images of differing shapes; supported are height"):
        read_pixel_config(tmp_path)


def test_patches_of_differing_shapes_are_refused_with_the_checkpoint_to_take(tmp_path):
    write_processor(tmp_path, {"patch_size": 16, "max_num_patches": 256, **IMAGENET})
    with pytest.raises(UserError, match="takes patches of differing shapes") as raised:
        read_pixel_config(tmp_path)
    assert "fix: choose the same model at a fixed size" in str(raised.value)


CONFIG = PixelConfig(
    resize="exact",
    resize_px=(8, 12),
    crop_px=(8, 12),
    resample=2,
    rescale_factor=1 / 255,
    mean=(0, 0, 0),
    std=(1, 1, 1),
)


def test_packing_decodes_upright_and_only_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° to see it upright
    upright = photograph(60, 40)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    photos = [jpeg(upright), jpeg(stored, exif=exif)]
    asked = []

    def read(row):
        asked.append(row)
        return photos[row]

    path = tmp_path / "cache" / "pixels.npy"
    packed = pack_pixels(read, 2, CONFIG, path, lambda: None)
    again = pack_pixels(read, 2, CONFIG, path, lambda: None)
    assert packed.shape == (2, 8, 12, 3)
    assert np.abs(packed[0].astype(int) - packed[1]).mean() < 3  # the same photograph, compressed twice
    assert np.array_equal(packed, again)
    assert sorted(asked) == [0, 1]
    assert [file.name for file in path.parent.iterdir()] == ["pixels.npy"]


def test_a_broken_image_names_its_row_and_leaves_no_file(tmp_path):
    path = tmp_path / "pixels.npy"
    with pytest.raises(UserError, match="the image of row 1 cannot be decoded: not an image"):
        pack_pixels(lambda row: jpeg(photograph(9, 9)) if row == 0 else b"no photograph", 2, CONFIG, path, lambda: None)
    assert list(tmp_path.iterdir()) == []
