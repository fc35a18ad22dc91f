"""train/imbalance.py: a batch in parts costs what the whole costs, and every remedy does what its paper says."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from builders.errors import UserError
from train.config import TrainConfig
from train.imbalance import IMBALANCE, Objective

LABELS = np.repeat([0, 1, 2, 3], [60, 25, 10, 5])
TRAIN = np.arange(100)


def objective(name="none", n_classes=4, **options):
    config = TrainConfig(dataset="x", out="x", imbalance=name, **options)
    return Objective(LABELS, TRAIN, n_classes, config)


def logits_of(n_rows, n_classes=4):
    return torch.randn(n_rows, n_classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", IMBALANCE)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_losses_of_uneven_parts_add_up_to_the_loss_of_the_batch(name, label_smoothing):
    this = objective(name, label_smoothing=label_smoothing)
    rows = np.random.default_rng(0).permutation(TRAIN)[:29]
    logits = logits_of(29)
    parts = np.array_split(np.arange(29), 4)
    summed = sum(this.loss(logits[part], rows[part], this.weight(rows)) for part in parts)
    weights, shifts = (
        None if v is None else torch.from_numpy(v).float() for v in (this.remedy.weights, this.remedy.shifts)
    )
    expected = F.cross_entropy(
        logits if shifts is None else logits + shifts,
        torch.from_numpy(LABELS[rows]),
        weight=weights,
        label_smoothing=label_smoothing,
    )
    torch.testing.assert_close(summed, expected)


@pytest.mark.parametrize("name", IMBALANCE)
def test_every_remedy_copes_with_a_class_that_has_no_rows(name):
    this = objective(name, n_classes=5, label_smoothing=0.1)
    rows = this.rows(0, 0)
    assert torch.isfinite(this.loss(logits_of(100, 5), rows, this.weight(rows)))
    assert set(LABELS[rows]) == {0, 1, 2, 3}


def test_class_weights_make_all_classes_weigh_the_same_and_keep_the_mean():
    weights = objective("class_weights").remedy.weights
    np.testing.assert_allclose(weights * [60, 25, 10, 5], 25)


def test_effective_numbers_lie_between_no_weights_and_inverse_counts():
    """By the paper's sum: a class of n rows counts for 1 + b + … + b^(n - 1) of them."""
    weights = objective("effective_number").remedy.weights
    counts = [60, 25, 10, 5]
    by_sum = np.array([1 / sum(0.999**i for i in range(n)) for n in counts])
    np.testing.assert_allclose(weights / weights[0], by_sum / by_sum[0])
    assert (weights * counts).sum() == pytest.approx(100)


def test_logit_adjustment_is_the_loss_of_menon_et_al():
    this = objective("logit_adjustment")
    logits, rows = logits_of(100), TRAIN
    prior = torch.tensor([0.6, 0.25, 0.1, 0.05])
    own = logits[range(100), LABELS]
    # their equation (10) with tau = 1: log(1 + sum over y' != y of (prior of y' / prior of y) * exp(f_y' - f_y))
    ratio = prior[None] / prior[LABELS][:, None] * torch.exp(logits - own[:, None])
    others = ratio.sum(dim=1) - 1
    torch.testing.assert_close(this.loss(logits, rows, 100.0), torch.log1p(others).mean())


def test_the_balanced_sampler_draws_classes_evenly_and_is_a_function_of_seed_and_epoch():
    this = objective("balanced_sampler")
    drawn = np.concatenate([this.rows(0, epoch) for epoch in range(40)])
    np.testing.assert_allclose(np.bincount(LABELS[drawn]) / 4000, 0.25, atol=0.03)
    assert len(this.rows(0, 0)) == 100
    assert np.array_equal(this.rows(0, 3), this.rows(0, 3))
    assert not np.array_equal(this.rows(0, 3), this.rows(1, 3))


def test_an_unknown_remedy_is_named_with_those_that_exist():
    with pytest.raises(UserError, match="unknown imbalance 'focal'; choose one of: balanced_sampler, class_weights"):
        objective("focal")
