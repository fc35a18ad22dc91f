"""train/loop.py, option by option: averages, early stopping, bf16, compilation, pixels that stay on the device."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.config import TrainConfig
from train.ema import Average
from train.history import Epoch, best_of, is_exhausted
from train.imbalance import IMBALANCE
from train.inputs import LiveInputs
from train.loop import fit, predict_logits
from train.model import FusionModel

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = SHAPES["tiny"]
STEADY = replace(TINY, dropout=0.0)
PIXELS, TEXTS, LABELS, SPLIT = learnable_data(TINY, 120)


def fitted(pixels=PIXELS, name="attention_pooling", shape=TINY, **options):
    model = FusionModel(name, CLASS_NAMES, *random_backbones(shape))
    inputs = LiveInputs(pixels, TEXTS, torch.device("cpu"), is_augmented=True)
    settings = {"epochs": 3, "batch_size": 16, "image_lr": 1e-3, "text_lr": 1e-3, **options}
    config = TrainConfig(dataset="x", out="x", **settings)
    done = fit(model, inputs, LABELS, SPLIT, config, 0, lambda _: None)
    return model, done, inputs


def test_averages_follow_the_formula():
    weight = torch.nn.Parameter(torch.zeros(3))
    average = Average({"w": weight, "buffer": torch.ones(1)}, 0.9)
    expected = 0.0
    for step in range(1, 40):
        with torch.no_grad():
            weight.fill_(float(step))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        torch.testing.assert_close(weight.detach(), torch.full((3,), expected))
    assert weight[0] == 39


def test_the_averaged_weights_are_validated_and_kept():
    model, done, inputs = fitted(ema=0.8)
    logits = torch.from_numpy(predict_logits(model, inputs, SPLIT.validation, 16))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS[SPLIT.validation]))
    assert float(loss) == pytest.approx(done.best.validation_loss, rel=1e-5)
    assert done.history != fitted()[1].history


def epochs(*scores):
    return [Epoch(i + 1, 0.0, 1.0, 0.0, score) for i, score in enumerate(scores)]


def test_patience_counts_epochs_since_the_best():
    assert not is_exhausted(epochs(0.1, 0.2, 0.1), 2)
    assert is_exhausted(epochs(0.1, 0.2, 0.1, 0.2), 2)
    assert not is_exhausted(epochs(0.1, 0.2, 0.1, 0.3), 2)
    assert not is_exhausted(epochs(0.1, 0.1, 0.1, 0.1), None)
    assert best_of(epochs(0.1, 0.3, 0.3)).epoch == 2


def test_training_stops_when_patience_ends():
    _, done, _ = fitted(epochs=30, patience=2, lr=1e-9, image_lr=1e-9, text_lr=1e-9, label_smoothing=0.1)
    assert len(done.history) < 30
    assert len(done.history) == done.best.epoch + 2


def test_bf16_is_used_where_it_is_asked_for_also_on_a_cpu():
    exact, rounded = fitted()[1], fitted(is_bf16=True)[1]
    assert exact.history != rounded.history
    assert rounded.history[0].train_loss == pytest.approx(exact.history[0].train_loss, rel=0.02)


def test_pixels_on_the_device_train_as_those_on_disk(tmp_path):
    np.save(tmp_path / "pixels.npy", PIXELS)
    on_disk = fitted(np.load(tmp_path / "pixels.npy", mmap_mode="r"))[1]
    assert on_disk == fitted(torch.from_numpy(PIXELS))[1]


def test_every_imbalance_and_dropout_of_modalities_learns():
    for options in ({"modality_dropout": 0.3}, *({"imbalance": name} for name in IMBALANCE)):
        _, done, _ = fitted(epochs=12, lr=1e-2, **options)
        assert done.best.validation_macro_f1 > 0.5, options


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of torch's compiler, about torch
def test_compiled_steps_train_as_eager_ones():
    """Of the encoder whose batches differ in length; the image's is compiled by the same call."""
    eager, compiled = (fitted(name="text_only", shape=STEADY, is_compiled=choice)[1] for choice in (False, True))
    for one, other in zip(eager.history, compiled.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-2)
        assert other.validation_loss == pytest.approx(one.validation_loss, rel=1e-2)
