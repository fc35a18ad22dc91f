"""train/distances.py: distances to train are there for fine-tuned models too, and are those of scikit-learn."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics.pairwise import cosine_distances

from builders.build import BuildConfig, build
from builders.decode import decode_rgb
from train.backbones import load_image_backbone
from train.config import TrainConfig
from train.data import load_examples, split_of
from train.experiment import run
from train.nearest import nearest_of
from train.pixels import resize_and_crop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tmp_path, photographs, make_run, backbones, private_cache):
    """A function that gives a config for one model and both protocols."""
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "dataset", with_images=True))

    def make(**options):
        settings = {
            "dataset": str(tmp_path / "dataset"),
            "out": tmp_path / "experiment",
            "image_backbone": str(backbones / "vit"),
            "text_backbone": str(backbones / "bert"),
            "models": ("image_only",),
            "n_seeds": 1,
            "epochs": 1,
            "image_lr": 0.01,
        }
        return TrainConfig.model_validate(settings | options)

    return make


def measured(config, protocol="official"):
    return pq.read_table(config.out / "distances" / f"{protocol}.parquet")


@pytest.mark.parametrize("protocol", ["official", "clean"])
@pytest.mark.parametrize(("is_frozen", "said"), [(False, "as it was before it was fine-tuned"), (True, "frozen")])
def test_distances_are_those_of_scikit_learn_in_features_that_were_not_trained(
    config, backbones, protocol, is_frozen, said
):
    settings = config(is_frozen=is_frozen)
    run(settings)
    examples = load_examples(settings)
    split = split_of(examples, protocol)
    backbone = load_image_backbone(str(backbones / "vit")).eval()
    photographs = [decode_rgb(examples.read_image(row))[0] for row in range(len(examples.image_ids))]
    pixels = np.stack([resize_and_crop(photograph, backbone.pixels) for photograph in photographs])
    with torch.inference_mode():
        pooled = backbone(torch.from_numpy(pixels)).pooled.numpy()
    centred = pooled - pooled[split.train].mean(axis=0)
    expected = cosine_distances(centred[split.test], centred[split.train])
    found = measured(settings, protocol)
    assert found["image_id"].to_pylist() == [examples.image_ids[row] for row in split.test]
    assert found["distance"].to_pylist() == pytest.approx(expected.min(axis=1), abs=1e-4)
    assert found.schema.metadata[b"features_of"].decode() == f"pooled features of vit, {said}"


def test_an_experiment_that_has_none_gets_them_from_the_same_command(config):
    settings = config()
    run(settings)
    expected = measured(settings)
    (settings.out / "distances" / "official.parquet").unlink()
    again = run(settings)
    assert again.trained == ()
    assert measured(settings).equals(expected)


def test_models_that_see_no_images_have_none(config):
    settings = config(models=("text_only",))
    run(settings)
    assert not (settings.out / "distances").exists()


def test_the_nearest_is_the_train_image_of_the_same_direction():
    pooled = np.asarray([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0], [0.0, 4.0]], dtype=np.float32)

    class Rows:
        train, test = np.asarray([0, 1, 2]), np.asarray([3])

    (row,) = nearest_of(pooled, ["right", "up", "left", "asked"], Rows).to_pylist()
    assert row == {"image_id": "asked", "distance": pytest.approx(0.0, abs=1e-6), "nearest": "up"}
