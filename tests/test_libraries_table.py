"""The table's arithmetic: smoothing looks back only, reaching is read off between points, several seeds are averaged."""

import sys

import pytest
from integration_kit import EXAMPLES, example

TABLE = example("libraries_table")


def test_smoothing_averages_over_the_last_points_only():
    assert TABLE.smooth([0.0, 1.0, 0.0, 0.0], width=2).tolist() == [0.0, 0.5, 0.5, 0.0]


def test_a_score_is_reached_between_two_points():
    assert TABLE.reach([(10, 0.0), (20, 0.5), (40, 1.0)], 0.75, width=1) == 30
    assert TABLE.reach([(10, 0.6), (20, 1.0)], 0.5, width=1) == 10
    assert TABLE.reach([(10, 0.0), (20, 0.5)], 0.75, width=1) is None


def test_one_lucky_point_reaches_nothing():
    curve = [(i, 0.1) for i in range(10)] + [(10, 1.0)] + [(i, 0.1) for i in range(11, 20)]
    assert TABLE.reach(curve, 0.5) is None


def test_seeds_are_averaged_on_the_points_they_share():
    mean = TABLE.mean_curve([[(10, 0.0), (20, 1.0), (30, 1.0)], [(5, 0.0), (25, 1.0)]])
    assert mean == [(10, pytest.approx(0.125)), (20, pytest.approx(0.875))]


def test_the_ratio_compares_first_times_at_the_score_of_the_sum():
    slow, fast = [(i, i / 40) for i in range(1, 21)], [(i, i / 20) for i in range(1, 21)]
    row = TABLE.compare([slow], [fast])
    assert row.sum_score == pytest.approx(18 / 40)  # the mean of 16..20
    assert (row.sum_tokens, row.token_tokens) == (pytest.approx(20), pytest.approx(11))
    assert row.ratio == pytest.approx(0.55)
    assert TABLE.compare([fast], [slow]).ratio is None


def test_rllibs_example_is_left_out_where_ray_is_missing_and_nothing_else_is(monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "rllib_ppo", raising=False)
    assert TABLE.find("rllib_ppo") is None and "rllib_ppo is left out: it needs ray" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError, match="no_such_example"):
        TABLE.find("no_such_example")
