"""train/statistics: each number against scipy, scikit-learn, enumeration or simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from train.statistics.bootstrap import draw_groups, draw_seeds, interval, resample
from train.statistics.interval import median_interval, t_interval, t_probability, t_quantile
from train.statistics.paired import holm, mcnemar_exact, plurality

values = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@given(values)
def test_the_t_interval_is_scipys(given_values):
    found = t_interval(given_values)
    expected = stats.t.interval(
        0.95, len(given_values) - 1, np.mean(given_values), max(stats.sem(given_values), 1e-300)
    )
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_free", [1, 2, 3, 4, 9, 30, 101])
def test_the_t_distribution_is_scipys(n_free):
    for t in (0.1, 1.0, 2.5, 40.0):
        assert t_probability(t, n_free) == pytest.approx(2 * stats.t.cdf(t, n_free) - 1, abs=1e-12)
    for level in (0.5, 0.95, 0.999):
        assert t_quantile(level, n_free) == pytest.approx(stats.t.ppf((1 + level) / 2, n_free), rel=1e-9)


def test_one_seed_has_no_interval():
    assert t_interval([70.0]) is None


def test_the_t_interval_ends_where_the_score_does():
    found = t_interval([90.0, 99.0], 0, 100)
    assert (found.low, found.high) == (pytest.approx(94.5 - 12.7062 * 4.5, abs=1e-3), 100)
    assert t_interval([1.0, 10.0], 0, 100).low == 0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_binomial_test(first, second):
    expected = stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (2, 5), (4, 4)])
def test_mcnemar_is_the_share_of_all_coin_sequences_at_least_as_uneven(first, second):
    n, uneven = first + second, abs(first - second)
    sequences = list(itertools.product((1, -1), repeat=n))
    assert mcnemar_exact(first, second) == pytest.approx(np.mean([abs(sum(s)) >= uneven for s in sequences]))


def test_mcnemar_of_a_large_test_set_is_a_number():
    assert 0 < mcnemar_exact(1500, 2500) < 1e-50


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_rejects_what_the_step_down_rule_rejects(p_values):
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(int(place))
        assert {i for i, p in enumerate(corrected) if p <= level} == rejected


def test_the_plurality_of_the_seeds_is_taken_and_ties_go_to_the_first():
    assert plurality([[0, 1, 2], [1, 1, 0], [1, 0, 1]]) == [1, 1, 2]


def rows_of(drawn, resample_number):
    """The images of one resample, one entry per time that it holds them."""
    times = drawn.counts[resample_number].astype(int)[drawn.group_of]
    return np.repeat(np.arange(len(times)), times)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_each_resample_has_scikit_learns_accuracy_and_macro_f1(n_classes):
    rng = np.random.default_rng(1)
    groups = [f"g{i // 2}" for i in range(31)]
    labels, predicted = rng.integers(n_classes, size=31), rng.integers(n_classes, size=(3, 31))
    drawn = draw_groups(groups, 40)
    found = resample(labels, predicted, drawn)
    for number in range(40):
        rows = rows_of(drawn, number)
        for seed in range(3):
            pair = labels[rows], predicted[seed][rows]
            assert found.accuracy[number, seed] == pytest.approx(accuracy_score(*pair))
            assert found.macro_f1[number, seed] == pytest.approx(f1_score(*pair, average="macro", zero_division=0))


def test_copies_of_a_photograph_are_drawn_together_or_not_at_all():
    groups = list("aabbbcd")
    drawn = draw_groups(groups, 200)
    assert (drawn.counts.sum(axis=1) == 4).all()
    for number in range(200):
        rows = rows_of(drawn, number)
        times = np.bincount(rows, minlength=7)
        assert times[0] == times[1]
        assert times[2] == times[3] == times[4]


def stretch_of(n_seeds):
    return (n_seeds / (n_seeds - 1)) ** 0.5 * stats.t.ppf(0.975, n_seeds - 1) / stats.norm.ppf(0.975)


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 20])
def test_shares_of_seeds_are_those_of_drawing_again_stretched_about_their_mean(n_seeds):
    weights = draw_seeds(n_seeds, 2000)
    times = ((weights - 1 / n_seeds) / stretch_of(n_seeds) + 1 / n_seeds) * n_seeds
    np.testing.assert_allclose(times, times.round(), atol=1e-9)
    assert times.min() > -0.5
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert draw_seeds(1, 5).tolist() == [[1.0]] * 5


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_few_seeds_that_differ_are_not_taken_for_a_difference(n_seeds):
    """1,000 experiments in which the difference is chance in training alone: how often 0 is outside the interval."""
    rng = np.random.default_rng(0)
    weights = draw_seeds(n_seeds)
    found = [interval(np.tile(seeds, (len(weights), 1)), weights) for seeds in rng.normal(size=(1000, n_seeds))]
    wrong = np.mean([each.low > 0 or each.high < 0 for each in found])
    assert 0.02 < wrong < 0.08  # and without the stretch 0.5, 0.25 and 0.15
    narrow = 1 / n_seeds + (weights - 1 / n_seeds) / stretch_of(n_seeds)
    found = [interval(np.tile(seeds, (len(narrow), 1)), narrow) for seeds in rng.normal(size=(1000, n_seeds))]
    assert np.mean([each.low > 0 or each.high < 0 for each in found]) > 0.1


def test_the_interval_is_that_of_all_possible_resamples():
    """Three groups and two seeds: 27 × 4 equally likely resamples, all of them enumerated."""
    labels, predicted = np.array([0, 0, 1, 1]), np.array([[0, 1, 1, 1], [0, 0, 1, 0]])
    groups = ["a", "a", "b", "c"]
    members = {"a": [0, 1], "b": [2], "c": [3]}
    every = []
    for drawn_groups in itertools.product("abc", repeat=3):
        rows = [row for group in drawn_groups for row in members[group]]
        by_seed = [accuracy_score(labels[rows], answers[rows]) for answers in predicted]
        every += [np.mean(seeds) for seeds in itertools.product(by_seed, repeat=2)]
    drawn = draw_groups(groups, 20_000)
    weights = 1 / 2 + (draw_seeds(2, 20_000) - 1 / 2) / stretch_of(2)
    found = (resample(labels, predicted, drawn).accuracy * weights).sum(axis=1)
    assert found.mean() == pytest.approx(np.mean(every), abs=0.01)
    assert found.std() == pytest.approx(np.std(every), abs=0.01)


@pytest.mark.parametrize("n", [6, 7, 20, 21, 100])
def test_the_interval_of_a_median_is_the_one_that_the_sign_test_does_not_reject(n):
    found = median_interval([float(number) for number in reversed(range(n))])
    kept = [m for m in range(n) if stats.binomtest(m, n).pvalue > 0.05]  # how many may lie below the median
    assert found is not None
    assert (found.low, found.high) == (kept[0] - 1, kept[-1])


def test_five_values_say_nothing_sure_about_their_median():
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([]) is None


def test_resamples_are_a_function_of_the_seed():
    first, again, other = (draw_groups(list("abcdef"), 10, seed) for seed in (3, 3, 4))
    assert (first.counts == again.counts).all()
    assert (first.counts != other.counts).any()


def test_the_interval_covers_the_truth_as_often_as_it_says_and_one_that_parts_copies_does_not():
    """400 experiments of three seeds on 60 groups of four copies; the true accuracy is 0.7."""
    rng = np.random.default_rng(0)
    covered = {"together": 0, "apart": 0}
    for _ in range(400):
        difficulty = np.repeat(rng.normal(size=60), 4)
        is_right = difficulty + 0.3 * rng.normal(size=(3, 240)) < stats.norm.ppf(0.7) * np.sqrt(1 + 0.09)
        for name, groups in (("together", np.arange(240) // 4), ("apart", np.arange(240))):
            drawn = draw_groups([str(group) for group in groups], 200)
            values = resample(np.ones(240, dtype=int), is_right.astype(int), drawn).accuracy
            found = interval(values, draw_seeds(3, 200))
            covered[name] += found.low <= 0.7 <= found.high
    assert 0.91 <= covered["together"] / 400 <= 0.99
    assert covered["apart"] / 400 < 0.85
