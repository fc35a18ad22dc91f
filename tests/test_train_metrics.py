"""train/metrics.py: the two numbers are scikit-learn's, absent classes included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from train.metrics import accuracy, macro_f1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_both_equal_scikit_learn(pairs):
    labels, predicted = np.array(pairs, dtype=np.int64).T
    assert accuracy(labels, predicted) == pytest.approx(accuracy_score(labels, predicted))
    assert macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))


def test_a_class_that_occurs_nowhere_does_not_count():
    assert macro_f1(np.array([0, 5]), np.array([0, 5])) == 1.0


def test_a_class_that_is_never_predicted_counts_as_zero():
    assert macro_f1(np.array([0, 1]), np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2)
