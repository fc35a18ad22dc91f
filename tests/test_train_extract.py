"""vl-dermnet features: an encoder's vectors of photographs, whole or absent, as audit and train-features read them."""

import numpy as np
import pytest
import torch
from PIL import Image

from builders.audit.config import AuditConfig
from builders.audit.features import read_columns
from builders.audit.job import run_audit
from builders.decode import decode_rgb
from builders.errors import UserError
from builders.files import sha256_of, write_json
from train.backbones import load_image_backbone
from train.extract import Extraction, write_features
from train.pixels import resize_and_crop


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_features_are_what_the_backbone_says_of_each_photograph(photographs, backbones, tmp_path, ending):
    out = tmp_path / f"features.{ending}"
    n_images, n_refused = write_features(
        str(photographs), out, Extraction(str(backbones / "vit"), has_patch_mean=True, batch_size=4)
    )
    assert (n_images, n_refused) == (26, 1)
    columns = read_columns(out)
    assert set(columns) == {"path", "image_sha256", "pooled", "patch_mean"}
    backbone = load_image_backbone(str(backbones / "vit")).eval()
    for place in (0, 7, 25):
        file = photographs / str(columns["path"][place])
        assert columns["image_sha256"][place] == sha256_of(file)
        pixels = resize_and_crop(decode_rgb(file.read_bytes())[0], backbone.pixels)
        with torch.inference_mode():
            said = backbone(torch.from_numpy(pixels.copy())[None])
        np.testing.assert_allclose(columns["pooled"][place], said.pooled[0].numpy(), rtol=1e-4, atol=1e-5)
        patches = said.tokens[0, 1:].mean(dim=0).numpy()
        np.testing.assert_allclose(columns["patch_mean"][place], patches, rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if "features" in path.name) == [out.name]


def test_registers_are_no_patches(photographs, tmp_path):
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.Dinov2WithRegistersConfig(**sizes, image_size=16, patch_size=4, num_register_tokens=3)
    torch.manual_seed(0)
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "dino")
    processor = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    write_json(tmp_path / "dino" / "preprocessor_config.json", processor)
    backbone = load_image_backbone(str(tmp_path / "dino")).eval()
    for size_px, n_patches in ((None, 16), ((8, 16), 8)):
        asked = Extraction(str(tmp_path / "dino"), has_patch_mean=True, size_px=size_px)
        write_features(str(photographs), tmp_path / "features.npz", asked)
        columns = read_columns(tmp_path / "features.npz")
        pixels = backbone.pixels.model_copy(update={"resize_px": size_px, "crop_px": size_px} if size_px else {})
        image, _ = decode_rgb((photographs / str(columns["path"][0])).read_bytes())
        with torch.inference_mode():
            tokens = backbone(torch.from_numpy(resize_and_crop(image, pixels).copy())[None]).tokens[0]
        assert len(tokens) == 1 + 3 + n_patches
        expected = tokens[-n_patches:].mean(dim=0).numpy()
        np.testing.assert_allclose(columns["patch_mean"][0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", [False, True])
def test_what_was_finished_before_a_kill_is_not_computed_again(photographs, backbones, tmp_path, monkeypatch, changed):
    from train import extract

    monkeypatch.setattr(extract, "PART_IMAGES", 10)
    asked = Extraction(str(backbones / "vit"))
    write_features(str(photographs), tmp_path / "whole.npz", asked)
    encode = extract._encode
    n_left = 2

    def dying(*arguments):
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(extract, "_encode", dying)
    with pytest.raises(KeyboardInterrupt):
        write_features(str(photographs), tmp_path / "killed.npz", asked)
    assert not (tmp_path / "killed.npz").exists()
    n_left = 1  # of three parts two are there
    if changed:  # and one of them is of other bytes by now
        Image.new("RGB", (24, 16), "white").save(photographs / str(read_columns(tmp_path / "whole.npz")["path"][0]))
        n_left = 2
    write_features(str(photographs), tmp_path / "killed.npz", asked)
    whole, killed = read_columns(tmp_path / "whole.npz"), read_columns(tmp_path / "killed.npz")
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not np.array_equal(whole[name][1:], killed[name][1:])] == []
    assert np.array_equal(whole["pooled"][0], killed["pooled"][0]) == (not changed)


def test_audit_finds_neighbours_with_them(photographs, backbones, tmp_path):
    write_features(str(photographs), tmp_path / "features.npz", Extraction(str(backbones / "vit")))
    config = AuditConfig(
        images=str(photographs), out=tmp_path / "audit", features=tmp_path / "features.npz", encoders=("pooled",)
    )
    found, _ = run_audit(config)
    assert found.features is not None
    assert found.features.n_missing == 0


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        ({}, "features.csv", "ends neither in .npz nor in .parquet"),
        ({"n_layers": 99}, "features.npz", "layers"),
        ({"device": "gpu"}, "features.npz", "unknown device 'gpu'; choose one of: auto, cpu"),
        ({"size_px": (3, 3)}, "features.npz", "does not take images of 3 × 3 pixels"),
    ],
)
def test_what_cannot_be_is_a_clear_error_and_leaves_no_file(photographs, backbones, tmp_path, options, out, message):
    with pytest.raises(UserError, match=message):
        write_features(str(photographs), tmp_path / out, Extraction(str(backbones / "vit"), **options))
    assert not (tmp_path / out).exists()
