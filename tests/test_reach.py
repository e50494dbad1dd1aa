import math
from dataclasses import asdict

import numpy as np
import pytest
from suite_kit import learning_row

from textgym.suite.reach import episodes_to_reach, first_at
from textgym.suite.setting import Setting
from textgym.suite.summary import tables


def test_the_first_crossing_is_read_between_the_points():
    x, y = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.1, 0.3, 0.2, 0.9])
    assert math.isclose(first_at(x, y, 0.2), 5.0)
    assert first_at(x, y, 0.1) == 0.0
    assert first_at(x, y, 0.05) == 0.0
    assert math.isclose(first_at(x, y, 0.55), 25.0)
    assert first_at(x, y, 0.91) == math.inf


def test_the_mean_curve_is_compared_with_the_mean_of_the_final_scores():
    theirs = [learning_row("copying", "scalar", seed, [0.0, 0.1, final]) for seed, final in enumerate([0.2, 0.4, 0.6])]
    ours = [learning_row("copying", "dense", seed, [0.0, half, 1.0]) for seed, half in enumerate([0.4, 0.6, 0.8])]
    found = episodes_to_reach(ours, theirs)  # mean 0.4; ours have 0.6 after 10 episodes
    assert math.isclose(found.value, 10 * 0.4 / 0.6)
    assert 10 * 0.2 / 0.8 - 1e-9 <= found.low < found.value < found.high <= 10 + 10 * (0.6 - 0.4) / 0.6 + 1e-9


def test_the_interval_is_that_of_a_mean_and_narrower_than_the_runs_are_apart():
    theirs = [learning_row("copying", "scalar", seed, [0.0, 0.1, seed / 10]) for seed in range(11)]
    ours = [learning_row("copying", "dense", 0, [0.0, 0.5, 1.0])]
    found = episodes_to_reach(ours, theirs)
    assert math.isclose(found.value, 10.0)
    assert 4 < found.low < 8 and 12 < found.high < 16


def test_what_some_draws_never_reach_has_an_open_interval():
    theirs = [learning_row("copying", "scalar", seed, [0.0, 0.1, final]) for seed, final in enumerate([0.4, 0.9])]
    ours = [learning_row("copying", "dense", 0, [0.0, 0.6, 0.8])]
    found = episodes_to_reach(ours, theirs)
    assert math.isfinite(found.value) and math.isfinite(found.low)
    assert found.high == math.inf


def test_runs_of_other_lengths_are_refused():
    ours = [learning_row("copying", "dense", 0, [0, 1, 1]), learning_row("copying", "dense", 1, [0, 1, 1], tokens=(0, 50, 100))]
    with pytest.raises(ValueError, match="points at different episodes"):
        episodes_to_reach(ours, ours)


def test_the_table_gives_episodes_and_their_share_of_the_baseline_s():
    rows = [
        learning_row("copying", "scalar", 0, [0.0, 0.2, 0.4]),
        learning_row("copying", "dense", 0, [0.0, 0.8, 0.9]),
        learning_row("copying", "uniform", 0, [0.0, 0.1, 0.2]),
        learning_row("brackets", "dense", 0, [0.0, 0.1, 0.2]),  # nothing to compare with
    ]
    other = Setting("copying", "dense", "ppo", 64, agent_args={"gamma": 0.0})
    rows.append(learning_row("copying", "dense", 0, [0.4, 0.8, 0.9]) | {"key": other.key, "setting": asdict(other)})
    (made,) = (each for each in tables(rows) if each.title.startswith("episodes until"))
    assert made.rows == (
        ("copying", "ppo, scalar", "20 [20, 20]", "1.00"),
        ("copying", "ppo, dense", "5 [5, 5]", "0.25"),
        ("copying", "ppo, uniform", "never [never, never]", "never"),
        ("copying", "ppo, dense (gamma=0.0)", "0 [0, 0]", "0.00"),
    )
