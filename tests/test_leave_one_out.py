import numpy as np
import pytest
from conftest import build_episode

from textgym.credit import LeaveOneOut
from textgym.parts import matches


def words(episode):
    return matches(episode, "[a-z]+")


def test_each_part_is_paid_what_is_lost_without_it_and_the_last_token_the_rest():
    worth = {"b.": 1.0, "a.": 4.0, "ab": 6.0}
    assigner = LeaveOneOut(lambda episodes: [worth[e.text] for e in episodes])
    assert assigner([7.0], [build_episode("ab.")])[0].tolist() == [6.0, 3.0, 1.0 - 3.0]
    assert assigner.reward_calls == 3


def test_parts_that_matter_only_together_are_each_paid_all_of_it_and_the_rest_is_taken_back():
    both = LeaveOneOut(lambda episodes: [float("a" in e.text and "b" in e.text) for e in episodes], words)
    assert both([1.0], [build_episode("a b.")])[0].tolist() == [1.0, 0, 1.0, -1.0]


def test_equals_a_brute_force_oracle_on_1000_random_set_functions():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        count = int(rng.integers(1, 9))
        text, worth = "abcdefgh"[:count], rng.normal(size=256)
        worth[0] = 0.0

        def score(episodes, v=worth):
            return [v[sum(1 << "abcdefgh".index(letter) for letter in e.text)] for e in episodes]

        everyone = (1 << count) - 1
        (paid,) = LeaveOneOut(score)([worth[everyone]], [build_episode(text)])
        expected = [worth[everyone] - worth[everyone & ~(1 << i)] for i in range(count)]
        expected[-1] += worth[everyone] - sum(expected)
        assert paid.tolist() == pytest.approx(expected, abs=1e-12)
