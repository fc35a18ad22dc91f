"""train/missing.py: a modality that was dropped is as one that was never there."""

import numpy as np
import pytest
import torch

from train.bench.shapes import CLASS_NAMES, SHAPES, learnable_data, random_backbones
from train.inputs import LiveInputs
from train.missing import drop_modalities, without_image, without_text
from train.model import FusionModel
from train.scaling import measure_scaling

CPU = torch.device("cpu")
FUSIONS_OF_BOTH = ["concat", "gating", "dual_film", "attention_pooling", "late_logits", "bottleneck_tokens"]


@pytest.fixture(scope="module")
def made():
    pixels, texts, labels, split = learnable_data(SHAPES["tiny"], 60)
    return LiveInputs(pixels, texts, CPU, is_augmented=True), texts, split


def model_of(name, inputs, split):
    model = FusionModel(name, CLASS_NAMES, *random_backbones(SHAPES["tiny"])).eval()
    measure_scaling(model, inputs, split.train, 32)
    return model


@pytest.mark.parametrize("name", FUSIONS_OF_BOTH)
def test_a_dropped_text_answers_as_an_empty_one(made, name):
    inputs, texts, split = made
    model = model_of(name, inputs, split)
    rows = np.arange(6)
    with torch.inference_mode():
        dropped = model(without_text(inputs.features(model, rows), torch.ones(6, dtype=torch.bool)))
        pixels, nothing = inputs.pixels[rows], torch.zeros(6, 1, dtype=torch.bool)
        empty = model(model.encode(torch.from_numpy(pixels), torch.zeros(6, 1, dtype=torch.int64), nothing, 6))
    torch.testing.assert_close(dropped, empty)


@pytest.mark.parametrize("name", FUSIONS_OF_BOTH)
def test_a_dropped_image_has_no_influence_and_gets_no_gradient(made, name):
    inputs, _, split = made
    model = model_of(name, inputs, split)
    one, other = (inputs.features(model, np.array([row])) for row in (0, 1))
    mixed = model.encode(torch.from_numpy(inputs.pixels[[1]]), *_text_of(inputs, 0), 1)
    gone = torch.ones(1, dtype=torch.bool)
    answer = model(without_image(model, one, gone))
    torch.testing.assert_close(answer, model(without_image(model, mixed, gone)))
    answer.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.image.parameters())


def _text_of(inputs, row):
    length = int(inputs.texts.mask[row].sum())
    return (
        torch.from_numpy(inputs.texts.token_ids[[row], :length]),
        torch.from_numpy(inputs.texts.mask[[row], :length]),
    )


def test_dropout_takes_either_modality_of_its_share_of_rows_whatever_the_order(made):
    inputs, _, split = made
    model = model_of("concat", inputs, split)
    rows = np.arange(60)
    features = inputs.features(model, rows)
    dropped = drop_modalities(model, features, rows, 0.5, 0, 3)
    no_text = ~dropped.text_mask.any(dim=1)
    no_image = (dropped.image_pooled == model.scaling["image_pooled"].mean).all(dim=1)
    assert 18 < int(no_text.sum() + no_image.sum()) < 42
    assert min(no_text.sum(), no_image.sum()) > 5
    assert not (no_text & no_image).any()
    backwards = drop_modalities(model, inputs.features(model, rows[::-1]), rows[::-1], 0.5, 0, 3)
    assert torch.equal(~backwards.text_mask.any(dim=1).flip(0), no_text)
    assert drop_modalities(model, features, rows, 0.0, 0, 3) is features


def test_a_model_of_one_modality_loses_nothing(made):
    inputs, _, split = made
    model = model_of("image_only", inputs, split)
    features = inputs.features(model, np.arange(4))
    assert drop_modalities(model, features, np.arange(4), 1.0, 0, 0) is features
