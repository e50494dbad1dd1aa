"""Assigners: what they declare, and what they pay, by hand."""

import numpy as np
from conftest import build_episode

from textgym import PromptTask
from textgym.checks import check_assigner, check_task
from textgym.credit import Assigned, Assigner, Last, Uniform


def test_last_pays_the_last_agent_token_and_uniform_each_of_them():
    episode = build_episode("abcd", agent_mask=[True, False, True, False])
    assert Last()([3.0], [episode])[0].tolist() == [0, 0, 3.0, 0]
    assert Uniform()([3.0], [episode])[0].tolist() == [1.5, 0, 1.5, 0]


def test_both_are_what_they_declare(letters):
    for assigner in (Last(), Uniform()):
        assert isinstance(assigner, Assigner)
        check_assigner(assigner, letters, texts=["abc", "a"])


def test_a_score_and_an_assigner_make_a_reward_function(letters):
    reward_fn = Assigned(lambda episodes: [float(len(episode.text)) for episode in episodes], Uniform())
    (paid,) = reward_fn([build_episode("abc")])
    assert np.asarray(paid).tolist() == [1.0, 1.0, 1.0]
    check_task(PromptTask(["a"], letters, reward_fn, max_new_tokens=5))
