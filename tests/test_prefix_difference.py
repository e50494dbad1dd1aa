import numpy as np
import pytest
from conftest import build_episode

from textgym.credit import PrefixDifference
from textgym.parts import matches

WORTH = {"a": 1.0, "ab": 0.25, "abc": 2.0, "ab c": 5.0, "abcd": 9.0}


def table(episodes):
    return [WORTH[episode.text] for episode in episodes]


def words(episode):
    return matches(episode, "[a-z]+")


def test_each_token_is_paid_what_the_score_rose_by():
    assigner = PrefixDifference(table)
    assert assigner([-1.0], [build_episode("abcd")])[0].tolist() == [1.0, -0.75, 1.75, -3.0]
    assert assigner.reward_calls == 3


def test_the_environments_tokens_are_read_and_not_paid():
    episode = build_episode("abcd", agent_mask=[True, False, False, True])
    assert PrefixDifference(table)([4.0], [episode])[0].tolist() == [1.0, 0, 0, 3.0]


def test_spans_are_paid_on_their_last_tokens_and_what_follows_them_on_the_last():
    assigner = PrefixDifference(table, words)
    assert assigner([2.0], [build_episode("ab c.")])[0].tolist() == [0, 0.25, 0, 4.75, -3.0]
    assert (assigner.causal, PrefixDifference(table).causal) == (False, True)
    assert PrefixDifference(table, words, causal_spans=True).causal


def test_equals_a_brute_force_oracle_on_1000_random_functions():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        count = int(rng.integers(1, 9))
        text, levels = "abcdefgh"[:count], rng.normal(size=9)
        (paid,) = PrefixDifference(lambda episodes, v=levels: [v[len(e.text)] for e in episodes])(
            [levels[count]], [build_episode(text)]
        )
        expected = [levels[i] - (levels[i - 1] if i > 1 else 0.0) for i in range(1, count + 1)]
        assert paid.tolist() == pytest.approx(expected, abs=1e-12)
