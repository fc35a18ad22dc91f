"""train on real photographs with real pretrained backbones; slow, and skipped where either is absent."""

import os
from pathlib import Path

import pytest

from builders.build import BuildConfig, build
from train.config import TrainConfig
from train.experiment import run
from train.table import experiment_table

pytestmark = pytest.mark.slow


@pytest.fixture
def real_backbones():
    """The folder that shared/tools/make_backbones.py wrote, named by VL_DERMNET_BACKBONES."""
    folder = os.environ.get("VL_DERMNET_BACKBONES", "")
    if not folder or not (Path(folder) / "dinov2-small").is_dir():
        pytest.skip(
            "set VL_DERMNET_BACKBONES to a folder with dinov2-small and minilm (shared/tools/make_backbones.py)"
        )
    return Path(folder)


def test_dinov2_and_minilm_learn_from_real_photographs(tmp_path, shared_data, real_backbones, make_run, private_cache):
    photographs = shared_data / "pad_ufes_20"
    described = make_run(text=lambda row: f"A photograph of skin, {row.width_px} pixels wide.", images=photographs)
    build(BuildConfig(images=photographs, runs=(described,), out=tmp_path / "dataset"))
    config = TrainConfig(
        dataset=str(tmp_path / "dataset"),
        images=photographs,
        out=tmp_path / "exp",
        image_backbone=str(real_backbones / "dinov2-small"),
        text_backbone=str(real_backbones / "minilm"),
        models=("image_only", "attention_pooling"),
        n_seeds=1,
        is_frozen=True,
        epochs=30,
    )
    run(config)
    scores = {row.model: row.ours for row in experiment_table(config.out).rows if row.ours}
    chance = 100 / 6
    for model in config.models:
        for protocol in ("official", "clean"):
            assert scores[model][protocol].accuracy_mean > 2 * chance, (model, protocol)
