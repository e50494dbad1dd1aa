"""Brackets: what closes earns, what breaks pays on its own token; by hand and against a stack written otherwise."""

import re

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt
from textgym.tasks.brackets import Brackets


def play(prompt, text, eos=True, **kwargs):
    task = Brackets(**kwargs)
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": Prompt(prompt)})
    for action in [*task.tokenizer.encode(text).tolist(), *([1] if eos else [])]:
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    return textgym.release(info)


@pytest.mark.parametrize(
    ("prompt", "text", "rewards"),
    [
        ("([]{", "})", [0.5, 0.5, 0]),
        ("(", ")", [1, 0]),
        ("({", "[]})", [0, 0, 0.5, 0.5, 0]),  # a pair of its own is neither paid nor punished
        ("({", "}]", [0.5, -1, 0]),  # the wrong bracket pays; what was right before it keeps its share
        ("({", ")}", [-1, 0, 0]),  # nothing after it counts
        ("({", "}", [0.5, -1]),  # end-of-text while the prompt's own is open
        ("({", "}[", [0.5, -1, 0]),  # the response opened it and never closed it
        ("(", "))", [1, -1, 0]),  # nothing is left to close
        ("(", "[[]", [-1, 0, 0, 0]),
        ("(", "", [-1]),
    ],
)
def test_rewards_by_hand(prompt, text, rewards):
    release = play(prompt, text)
    assert release.token_rewards.tolist() == rewards
    assert release.is_success == (min(rewards) >= 0)
    scalar = play(prompt, text, reward="scalar")
    assert scalar.token_rewards.tolist() == [0.0] * len(text) + [float(min(rewards) >= 0)]


def test_a_text_that_is_cut_pays_even_if_it_is_closed():
    release = play("(", "[]" + "[]", eos=False, depth=1)
    assert release.token_rewards.tolist() == [0, 0, 0, -1]
    release = play("((", "[][][][]))", eos=False, depth=3)
    assert release.token_rewards.tolist() == [0] * 8 + [0.5, 0.5 - 1]
    assert not release.is_success


@given(seed=st.integers(0, 2**32 - 1), text=st.text("()[]{}", max_size=12))
def test_a_text_is_well_formed_where_taking_out_pairs_leaves_nothing(seed, text):
    prompt = Brackets().sample(np.random.default_rng(seed)).text
    left, before = prompt + text, None
    while left != before:
        left, before = re.sub(r"\(\)|\[\]|\{\}", "", left), left
    release = play(prompt, text)
    assert release.is_success == (left == "")
    assert (release.token_rewards <= -0.5).sum() == (left != "")


def test_prompts_leave_one_to_depth_brackets_open_and_fit():
    task = Brackets(depth=3, length=6)
    rng = np.random.default_rng(0)
    seen = set()
    for text in {task.sample(rng).text for _ in range(500)}:
        assert len(text) <= 6
        left = text
        for _ in range(6):
            left = re.sub(r"\(\)|\[\]|\{\}", "", left)
        assert set(left) <= set("([{")
        seen.add((len(left), len(text) > len(left)))
    assert {depth for depth, _ in seen} == {1, 2, 3}
    assert {pairs for _, pairs in seen} == {True, False}


def test_the_id_and_wrong_arguments():
    assert gym.make("textgym/Brackets-v0", depth=2).unwrapped.rules.max_new_tokens == 7
    with pytest.raises(ValueError, match="depth is 5 and length 3"):
        Brackets(5, 3)
    with pytest.raises(ValueError, match="'dense' and 'scalar'"):
        Brackets(reward="sum")
