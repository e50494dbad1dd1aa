"""Criteria: one reward function made of several named ones."""

import pickle

import numpy as np
import pytest
from conftest import build_episode

from textgym import Span, resolve
from textgym.criteria import combine
from textgym.parts import lines, pay


def length(episodes):
    return [float(len(episode.text)) for episode in episodes]


def first_line(episodes):
    return [pay(lines(episode)[:1], 1.0) for episode in episodes]


def as_array(episodes):
    return np.arange(len(episodes), dtype=np.float64)


def test_criteria_come_out_under_their_names_and_are_weighted_by_the_task():
    episodes = [build_episode("a\nb"), build_episode("c")]
    rewards = combine({"length": length, "first": first_line, "array": as_array})(episodes)
    assert rewards == [
        {"length": 3.0, "first": [Span(0, 2, 1.0)], "array": 0.0},
        {"length": 1.0, "first": [Span(0, 1, 1.0)], "array": 1.0},
    ]
    first, second = resolve(rewards, episodes, {"length": 0.5})
    assert first.criteria == {"length": 3.0, "first": 1.0, "array": 0.0}
    assert first.token_rewards.tolist() == [0, 1, 1.5]
    assert second.token_rewards.tolist() == [2.5]
    assert combine({"length": length})([]) == []


def test_each_criterion_is_called_once_per_batch_with_the_batch():
    calls = []

    def spy(episodes):
        calls.append(episodes)
        return length(episodes)

    episodes = [build_episode("a"), build_episode("b"), build_episode("c")]
    combine({"spy": spy, "length": length})(episodes)
    assert calls == [episodes]


def test_a_combined_reward_function_can_be_pickled_and_does_not_change_with_the_dict_it_was_made_of():
    criteria = {"length": length, "first": first_line}
    combined = combine(criteria)
    criteria.clear()
    again = pickle.loads(pickle.dumps(combined))  # noqa: S301
    assert again([build_episode("ab")]) == combined([build_episode("ab")]) == [{"length": 2.0, "first": [Span(0, 2, 1.0)]}]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "criterion 'odd' returned 1 rewards for 2 episodes; return one per episode"),
        ([1.0] * 3, "criterion 'odd' returned 3 rewards for 2 episodes; return one per episode"),
        (None, "what criterion 'odd' returned is None, a NoneType; return one reward per episode"),
        (1.0, "what criterion 'odd' returned is 1.0, a float; return one reward per episode"),
        ("ab", "what criterion 'odd' returned is ab, a str; return one reward per episode"),
        ({0: 1.0, 1: 1.0}, "a dict; return one reward per episode"),
        (np.array(1.0), "a ndarray; return one reward per episode"),
    ],
)
def test_a_criterion_that_does_not_return_one_item_per_episode_is_named(returned, message):
    combined = combine({"length": length, "odd": lambda episodes: returned})
    with pytest.raises(ValueError, match=message):
        combined([build_episode("a"), build_episode("b")])


def test_criteria_inside_criteria_are_refused_by_resolve():
    episodes = [build_episode("a")]
    with pytest.raises(ValueError, match="a Mapping inside criterion 'inner'"):
        resolve(combine({"inner": combine({"length": length})})(episodes), episodes)


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({}, "criteria is {}; give a dict with at least one"),
        ([length], "criteria is .*; give a dict with at least one"),
        ({"": length}, "criteria has the name ''; names are strings of at least one character"),
        ({1: length}, "criteria has the name 1; names are strings"),
        ({"a": 1.0}, "criterion 'a' is 1.0; give a function"),
    ],
)
def test_wrong_criteria_are_refused(criteria, message):
    with pytest.raises(ValueError, match=message):
        combine(criteria)
