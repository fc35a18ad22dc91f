"""train/optimizer.py: what decays, and how long the learning rates rise."""

import pytest
import torch

from train.bench.shapes import CLASS_NAMES, SHAPES, random_backbones
from train.config import TrainConfig
from train.model import FusionModel
from train.optimizer import lr_factor, make_optimizer


def test_matrices_decay_as_told_and_vectors_never():
    model = FusionModel("concat", CLASS_NAMES, *random_backbones(SHAPES["tiny"]))
    groups = make_optimizer(model, TrainConfig(dataset="x", out="x", weight_decay=0.2)).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.2 if parameter.ndim >= 2 else 0.0), name


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_peak_comes_after_the_share_of_steps_that_was_told(share):
    settings = TrainConfig(dataset="x", out="x", warmup_fraction=share)
    factors = torch.tensor([lr_factor(step, 40, settings) for step in range(40)])
    assert int(factors.argmax()) == 40 * share
    assert factors.max() == 1
