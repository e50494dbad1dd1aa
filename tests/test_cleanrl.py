"""Loops in CleanRL's manner: every token that was released is handed over once, with its reward, when its text has ended."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from integration_kit import DIGITS, arguments, example

import textgym
from textgym.integrations.cleanrl import FinishedEpisodes
from textgym.integrations.steps import stream_advantages

NEXT_STEP, SAME_STEP = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP


def make(host, mode, **more):
    if host == "native":
        return gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode=mode, **arguments(**more))
    return gym.vector.SyncVectorEnv([lambda: gym.make("TextGen-v0", **arguments(**more))] * 3, autoreset_mode=mode)


def play(envs, episodes, rows=119, window=7, value=0.0):
    """Play at random; hand batches over every ``window`` rows, which cuts texts. Gives the releases that are due by then."""
    rng, due, now, batches = np.random.default_rng(0), [], [], []
    obs, _ = envs.reset(seed=0)
    for row in range(1, rows + 1):
        actions = rng.integers(1, envs.single_action_space.n, size=3)
        after, _, _, _, infos = envs.step(actions)
        episodes.add(obs, actions, np.full(3, -float(row)), np.full(3, value), infos)
        due += now if envs.metadata["autoreset_mode"] is NEXT_STEP else textgym.releases(infos)
        now, obs = textgym.releases(infos), after
        if row % window == 0:
            batches.append(episodes.batch())
    return due, [np.concatenate(column) for column in zip(*batches, strict=True)]


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
@pytest.mark.parametrize("host", ["sync", "native"])
def test_every_released_token_is_handed_over_once_with_its_reward(host, mode):
    envs = make(host, mode)
    episodes = FinishedEpisodes(envs, gamma=0.0)  # with no future and no value, an advantage is the reward
    released, (obs, actions, _, advantages, returns, _) = play(envs, episodes)
    assert len(released) > 30
    paid = np.concatenate([item.token_rewards for item in released])
    np.testing.assert_allclose(np.sort(advantages), np.sort(paid), rtol=1e-6)
    assert episodes.rewards_placed == pytest.approx(float(paid.sum(dtype=np.float64)), abs=1e-4)
    np.testing.assert_allclose(advantages, (obs >= 0).sum(1) + actions / 100, rtol=1e-6)  # the prompt has one token
    np.testing.assert_array_equal(returns, advantages)


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
def test_texts_that_cross_the_window_keep_the_log_probability_they_were_sampled_with(mode):
    """The rows of a text are consecutive, whatever batch they come in."""
    envs = make("sync", mode)
    _, (obs, _, logprobs, *_) = play(envs, FinishedEpisodes(envs), window=1000, rows=1000)
    same = (obs[1:] >= 0).sum(1) > 1  # not the first of its text
    assert same.any()
    np.testing.assert_array_equal((logprobs[:-1] - logprobs[1:])[same], 1)


def test_advantages_stay_inside_streams():
    envs = make("native", SAME_STEP)
    _, (obs, actions, _, advantages, *_) = play(envs, FinishedEpisodes(envs, 0.9, 0.8), value=0.5)
    starts = [*np.flatnonzero((obs >= 0).sum(1) == 1), len(obs)]
    for start, end in pairwise(starts):
        rewards = (obs[start:end] >= 0).sum(1) + actions[start:end] / 100
        expected = stream_advantages(rewards, np.full(end - start, 0.5), actions[start:end] % 2, gamma=0.9, gae_lambda=0.8)
        np.testing.assert_allclose(advantages[start:end], expected, rtol=1e-5)


def test_a_truncated_text_is_worth_its_final_observation_and_same_step_cannot_say_it():
    cut = {"length_limit": "truncate", "streams_fn": None}
    envs = make("sync", NEXT_STEP, **cut)
    _, (obs, actions, _, advantages, _, _) = play(envs, FinishedEpisodes(envs, gamma=1.0, gae_lambda=0.0), value=100.0)
    ended = actions == DIGITS.eos_token_id
    cut_off = ((obs >= 0).sum(1) == 6) & ~ended
    assert cut_off.any() and (np.abs(advantages[cut_off]) < 10).all()  # r + V(final) - V
    assert ended.any() and (advantages[ended] < -80).all()  # r - V
    envs = make("sync", SAME_STEP, **cut)
    with pytest.raises(ValueError, match="under SAME_STEP"):
        play(envs, FinishedEpisodes(envs))


def test_a_window_in_which_no_text_ends_says_what_to_do():
    envs = make("native", SAME_STEP)
    episodes = FinishedEpisodes(envs)
    obs, _ = envs.reset(seed=0)
    actions = np.full(3, 4)
    episodes.add(obs, actions, np.zeros(3), np.zeros(3), envs.step(actions)[4])
    assert episodes.waiting == 3
    with pytest.raises(ValueError, match="make num_steps larger than the longest text"):
        episodes.batch()


def test_a_time_limit_or_no_reset_is_refused():
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("TextGen-v0", max_episode_steps=2)])
    with pytest.raises(ValueError, match="TimeLimit"):
        FinishedEpisodes(envs)
    with pytest.raises(ValueError, match="NEXT_STEP or SAME_STEP"):
        FinishedEpisodes(gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled"))


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
def test_rewards_that_come_late_are_refused(mode):
    envs = make("native", mode, reward_workers=1)
    with pytest.raises(ValueError, match="reward_workers=0"):
        play(envs, FinishedEpisodes(envs))
    envs.unwrapped.drain()
    envs.close()


def test_the_example_learns_copying():
    curve = example("cleanrl_ppo").learn("tokens", 10_240, 0)
    assert curve[0][1] < 0.15 and curve[-1][1] > 0.22
