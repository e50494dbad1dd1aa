"""Against numbers worked by hand, and against the definitions written out as loops."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from textgym.suite.statistics import (
    estimate_curve,
    estimate_improvement,
    estimate_iqm,
    improvement,
    interquartile_mean,
    interval,
    stratified_bootstrap,
)


def test_interquartile_mean_by_hand():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5  # 0, 1 and 6, 100 fall away: (2 + 3 + 4 + 5) / 4
    assert interquartile_mean([3, 1, 2, 1000, 2]) == pytest.approx(7 / 3)  # floor(5 / 4) = 1 at each end: 2, 2, 3
    assert interquartile_mean([0, 0, 9]) == 3  # of three nothing falls away
    assert interquartile_mean([[0, 1], [4, 5], [8, 9], [100, 101]], axis=0).tolist() == [6, 7]


def test_interquartile_mean_of_several_tasks_is_over_all_their_runs():
    estimate = estimate_iqm([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)  # each task's runs are drawn from that task


def test_each_stratum_is_drawn_from_itself_and_as_often_as_it_has_runs():
    seen = []

    def statistic(drawn):
        seen.extend(drawn)
        return drawn[0].mean(axis=1)

    stratified_bootstrap([[1, 2], [10, 20, 30]], statistic, seed=0, resamples=50)
    assert [each.shape for each in seen] == [(50, 2), (50, 3)]
    assert set(np.unique(seen[0])) == {1, 2}
    assert set(np.unique(seen[1])) == {10, 20, 30}
    with pytest.raises(ValueError, match="has no runs"):
        stratified_bootstrap([[1], []], statistic, seed=0)


def test_the_interval_is_that_of_all_resamples_counted_out():
    """Of three runs there are 27 resamples; the least is drawn three times in 1 of 27, 3.7 %, which is more than 2.5 %."""
    runs = [0.0, 3.0, 6.0]
    means = np.sort([np.mean(drawn) for drawn in itertools.product(runs, repeat=3)])
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    estimate = estimate_iqm([runs], resamples=40_000)
    assert estimate.value == 3
    assert (estimate.low, estimate.high) == (low, high) == (0, 6)


def test_a_bootstrap_with_the_same_seed_is_the_same_and_with_another_is_not():
    runs = [np.random.default_rng(0).random(9)]
    assert estimate_iqm(runs, seed=1) == estimate_iqm(runs, seed=1) != estimate_iqm(runs, seed=2)


def test_percentiles_by_hand():
    low, high = interval(np.arange(1001.0))
    assert (float(low), float(high)) == pytest.approx((25, 975))


def test_probability_of_improvement_by_hand():
    assert improvement([2, 4], [1, 3]) == 0.75  # 2 > 1, 4 > 1, 4 > 3
    assert improvement([1, 1], [1, 1]) == 0.5
    assert improvement([1, 2], [2, 3, 4]) == pytest.approx(0.5 / 6)  # one tie among six pairs
    assert improvement([5, 6, 7], [1]) == 1


def test_probability_of_improvement_is_that_of_all_pairs_and_of_the_mann_whitney_statistic():
    rng = np.random.default_rng(3)
    for _ in range(20):
        x, y = rng.integers(4, size=5).astype(float), rng.integers(4, size=3).astype(float)
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(x, y)]
        assert improvement(x, y) == pytest.approx(np.mean(pairs))
        assert improvement(x, y) == pytest.approx(mannwhitneyu(x, y, method="asymptotic").statistic / 15)
        assert improvement(x, y) == pytest.approx(1 - improvement(y, x))


def test_improvement_is_averaged_over_tasks_not_over_runs():
    estimate = estimate_improvement([[1.0], [1.0, 1.0, 1.0]], [[0.0], [2.0, 2.0, 2.0]])
    assert estimate.value == estimate.low == estimate.high == 0.5
    better = estimate_improvement([[3.0, 4.0, 5.0]], [[0.0, 1.0, 2.0]])
    assert better.value == better.low == better.high == 1
    with pytest.raises(ValueError, match="1 tasks of ours and 2 of theirs"):
        estimate_improvement([[1.0]], [[1.0], [1.0]])


def test_a_curve_is_estimated_point_by_point_from_whole_runs():
    value, low, high = estimate_curve([[0.0, 1.0, 4.0], [0.0, 1.0, 8.0]])
    assert value.tolist() == [0, 1, 6]
    assert low.tolist() == [0, 1, 4]
    assert high.tolist() == [0, 1, 8]
