"""Many steps at once are the same steps one by one, through every store and for every kind of ending."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym import PromptTask, releases, symbol_tokenizer
from textgym.info import endings
from textgym.texts import Texts
from textgym.torch_store import TorchStore

LETTERS = symbol_tokenizer([*"abcd."])
TASKS = {
    "plain": {"max_new_tokens": 6},
    "cut off": {"max_new_tokens": 4, "length_limit": "truncate"},
    "stopped": {"max_new_tokens": 6, "stop": ["b."]},
    "answered": {
        "max_new_tokens": 7,
        "max_response_tokens": 12,
        "max_turn_tokens": 3,
        "turn_stop": ["."],
        "reply_fn": lambda episode: "d" if int(episode.turns.max()) < 2 else None,
    },
}


def pay(episodes):
    return [[float(token) * mine for token, mine in zip(e.ids.tolist(), e.agent_mask, strict=True)] for e in episodes]


def build(kind, output="numpy", **options):
    task = PromptTask(["a", "bc", "d.d"], LETTERS, pay, **TASKS[kind])
    envs = textgym.TextGenVectorEnv(
        4, task, autoreset_mode=AutoresetMode.DISABLED, output="numpy" if output == "numpy" else "torch", **options
    )
    if output == "device":
        envs._store = TorchStore(envs.rules, 4, "cpu")
        envs._texts = Texts(envs.rules, envs._store, 4, 1)
    envs.reset(seed=1)
    return envs


def one_by_one(envs, actions):
    """Step row by row until nobody is left; what `step_many` gives of these rows."""
    obs, rewards, terminated, truncated, released, ended = None, np.zeros(4), np.zeros(4, bool), np.zeros(4, bool), [], []
    for taken, row in enumerate(actions):
        if envs._texts.idle.all():
            return taken, (obs, rewards, terminated, truncated, released, ended)
        obs, paid, over, cut, infos = envs.step(row)
        rewards, terminated, truncated = rewards + np.asarray(paid), terminated | np.asarray(over), truncated | np.asarray(cut)
        released += releases(infos)
        ended += endings(infos)
    return len(actions), (obs, rewards, terminated, truncated, released, ended)


def shown(release):
    return {name: np.asarray(value).tolist() if hasattr(value, "shape") else value for name, value in vars(release).items()}


@pytest.mark.parametrize("infos", ["arrays", "objects"])
@pytest.mark.parametrize("output", ["numpy", "torch", "device"])
@pytest.mark.parametrize("kind", TASKS)
@settings(max_examples=25)
@given(st.data())
def test_they_are_the_steps_one_by_one(kind, output, infos, data):
    single, many = build(kind, output), build(kind, output, infos=infos)
    for _ in range(3):
        rows = data.draw(st.integers(1, 5))
        drawn = data.draw(st.lists(st.sampled_from([1, 1, 2, 3, 4, 5, 6]), min_size=4 * rows, max_size=4 * rows))
        actions = np.array(drawn).reshape(rows, 4)
        taken, expected = one_by_one(single, actions)
        obs, rewards, terminated, truncated, infos_ = many.step_many(actions[:taken])
        assert np.array_equal(np.asarray(obs), np.asarray(expected[0]))
        for given_, wanted in zip((rewards, terminated, truncated), expected[1:4], strict=True):
            assert np.asarray(given_).tolist() == wanted.tolist()
        by_slot = sorted(expected[4], key=lambda release: release.slot)
        assert [shown(release) for release in releases(infos_)] == [shown(release) for release in by_slot]
        assert endings(infos_) == sorted(expected[5])
        ended = many._texts.idle.copy()
        if ended.any():
            for envs in (single, many):
                envs.reset(options={"reset_mask": ended})


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_masks_are_asked_for_between_the_rows(output):
    rng = np.random.default_rng(0)
    single, many = (
        textgym.TextGenVectorEnv(4, "number_duel", enforce_grammar=True, autoreset_mode=AutoresetMode.DISABLED, output=output)
        for _ in range(2)
    )
    for envs in (single, many):
        envs.reset(seed=2)
    for _ in range(6):
        rows = []
        while len(rows) < 3 and not single._texts.idle.all():
            rows.append([rng.choice(np.flatnonzero(row)) for row in np.asarray(single.action_masks())])
            obs = single.step(np.array(rows[-1]))[0]
        assert np.array_equal(np.asarray(many.step_many(rows)[0]), np.asarray(obs))
        assert many.mask_numbers.tolist() == single.mask_numbers.tolist()
        if single._texts.idle.all():
            for envs in (single, many):
                envs.reset()
    forbidden = int(np.flatnonzero(~np.asarray(many.action_masks())[0])[0])
    with pytest.raises(ValueError, match=r"action .* of slot 0 .* allowed are"):
        many.step_many(np.full((1, 4), forbidden))


def test_rows_after_an_episodes_end_are_ignored_and_rows_for_nobody_refused():
    envs = build("plain")
    envs.step_many(np.array([[1, 2, 2, 2], [3, 1, 1, 1]]))
    assert envs.response_lengths.tolist() == [1, 2, 2, 2]
    envs = build("plain")
    with pytest.raises(gym.error.ResetNeeded, match="every episode had ended after 1 of 2 steps; give no more of them"):
        envs.step_many(np.ones((2, 4), dtype=np.int64))


def test_a_token_that_is_none_in_a_later_row_asks_for_a_reset():
    envs = build("plain")
    with pytest.raises(ValueError, match="action of slot 2 is 99"):
        envs.step_many(np.array([[2, 2, 99, 2]]))
    assert envs.response_lengths.tolist() == [0] * 4
    with pytest.raises(ValueError, match="action of slot 2 is 99"):
        envs.step_many(np.array([[2, 2, 2, 2], [2, 2, 99, 2]]))
    with pytest.raises(gym.error.ResetNeeded, match="the last step raised an error; call reset"):
        envs.step(np.full(4, 2))
    envs.reset()
    envs.step(np.full(4, 2))


@pytest.mark.parametrize("actions", [np.full(4, 2), np.zeros((0, 4), dtype=np.int64), [2, 2, 2, 2]])
def test_actions_of_another_shape_are_refused(actions):
    with pytest.raises(ValueError, match=r"actions have shape .*; give \(k, 4\), k at least 1"):
        build("plain").step_many(actions)
    with pytest.raises(ValueError, match=r"give integers of shape \(4,\)"):
        build("plain").step_many(np.full((2, 3), 2))


def test_lists_and_tensors_are_actions_too():
    for actions in ([[2, 3, 4, 5], [1, 1, 1, 1]], torch.tensor([[2, 3, 4, 5], [1, 1, 1, 1]])):
        envs = build("plain", "torch")
        envs.step_many(actions)
        assert envs.response_lengths.tolist() == [2] * 4


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_environments_that_start_episodes_by_themselves_refuse(mode):
    envs = textgym.TextGenVectorEnv(2, PromptTask(["a"], LETTERS, pay, max_new_tokens=3), autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=f"step_many starts no episodes, but autoreset_mode is {mode.value}; use step"):
        envs.step_many(np.full((2, 2), 2))


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_left_is_what_reaches_the_limit(kind):
    envs = build(kind)
    left = envs.tokens_left.tolist()
    for taken in range(1, max(left) + 1):
        ended = np.asarray(envs.step(np.full(4, 2))[2]) | envs._texts.idle
        if kind == "answered":
            return
        assert ended.tolist() == [taken >= each for each in left]
        if ended.all():
            return
