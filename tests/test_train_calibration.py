"""Calibration: temperature, ECE, Brier and NLL against other ways to compute them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from train.calibration import TEMPERATURE_RANGE, brier, ece, fit_temperature, nll, reliability, softmax


def drawn(seed, n=400, n_classes=5, sharpness=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) * sharpness
    logits[np.arange(n), labels] += sharpness
    return logits, labels


def nll_by_hand(logits, labels, temperature):
    scaled = logits / temperature
    return np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(labels)), labels])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0, 10.0])
def test_no_temperature_on_a_fine_grid_has_a_lower_nll(seed, sharpness):
    logits, labels = drawn(seed, sharpness=sharpness)
    fitted = fit_temperature(logits, labels)
    grid = np.geomspace(*TEMPERATURE_RANGE, 2000)
    values = [nll_by_hand(logits, labels, t) for t in grid]
    assert nll_by_hand(logits, labels, fitted) <= min(values) + 1e-9
    assert fitted == pytest.approx(grid[int(np.argmin(values))], rel=0.01)


def test_a_temperature_undoes_a_scale():
    logits, labels = drawn(0)
    assert fit_temperature(logits * 2, labels) == pytest.approx(2 * fit_temperature(logits, labels), rel=1e-6)


def test_a_temperature_stays_in_its_range_where_no_finite_one_is_best():
    logits = np.eye(3) * 5
    assert fit_temperature(logits, np.arange(3)) == TEMPERATURE_RANGE[0]  # all right: the sharper the better
    assert fit_temperature(logits, np.asarray([1, 2, 0])) == TEMPERATURE_RANGE[1]  # all wrong: the flatter
    with pytest.raises(ValueError, match="needs at least one row"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


def ece_by_hand(probabilities, labels, n_bins):
    total = 0.0
    for i in range(n_bins):
        rows = [k for k, p in enumerate(probabilities) if i / n_bins < max(p) <= (i + 1) / n_bins]
        if rows:
            confidence = sum(max(probabilities[k]) for k in rows) / len(rows)
            right = sum(int(np.argmax(probabilities[k]) == labels[k]) for k in rows) / len(rows)
            total += len(rows) / len(labels) * abs(confidence - right)
    return total


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), n_bins=st.sampled_from([1, 10, 15]))
def test_ece_is_that_of_a_loop_written_by_hand(seed, n, n_bins):
    logits, labels = drawn(seed, n)
    probabilities = softmax(logits)
    assert ece(probabilities, labels, n_bins) == pytest.approx(ece_by_hand(probabilities, labels, n_bins), abs=1e-12)
    assert sum(each.n for each in reliability(probabilities, labels, n_bins)) == n


def test_brier_and_nll_are_those_of_their_formulas():
    logits, labels = drawn(1)
    probabilities = softmax(logits)
    squares = [sum((p[c] - (c == y)) ** 2 for c in range(5)) for p, y in zip(probabilities, labels, strict=True)]
    assert brier(probabilities, labels) == pytest.approx(np.mean(squares))
    assert nll(probabilities, labels) == pytest.approx(log_loss(labels, probabilities, labels=range(5)))


def test_sure_and_right_is_perfect_and_sure_and_wrong_is_worst():
    sure = softmax(np.eye(4) * 1000)
    assert (ece(sure, np.arange(4)), brier(sure, np.arange(4))) == (0.0, 0.0)
    assert (ece(sure, np.asarray([1, 2, 3, 0])), brier(sure, np.asarray([1, 2, 3, 0]))) == (1.0, 2.0)
    assert np.isfinite(nll(sure, np.asarray([1, 2, 3, 0])))
