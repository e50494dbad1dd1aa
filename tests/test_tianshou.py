"""tianshou: what its buffer holds after collecting is what was released, token by token; returns stay inside streams."""

from functools import partial
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("tianshou")
from integration_kit import arguments, example
from textgym_agents.integrations.perceptron import perceptron
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv

from textgym.integrations.steps import stream_advantages
from textgym.integrations.tianshou import TokenRewards

EXAMPLE = example("tianshou_ppo")


def collect(make=EXAMPLE.StreamPPO, episodes=40, hook=None, **more):
    """Play texts with an untrained actor. Gives algorithm, collector, its statistics."""
    thunk = partial(gym.make, "TextGen-v0", **arguments(**more))
    env = thunk()
    size, (length,) = int(env.action_space.n), env.observation_space.shape
    policy = DiscreteActorPolicy(actor=EXAMPLE.Actor(perceptron(length, size, size)), action_space=env.action_space)
    parts = {"policy": policy, "critic": perceptron(length, size, 1), "optim": AdamOptimizerFactory()}
    algorithm = make(**parts, gamma=0.9, gae_lambda=0.8)
    collector = Collector(policy, DummyVectorEnv([thunk] * 3), VectorReplayBuffer(3000, 3), on_episode_done_hook=hook)
    collector.reset(gym_reset_kwargs={"seed": 0})
    return algorithm, collector, collector.collect(n_episode=episodes)


def test_the_buffer_holds_each_token_reward_once_where_its_token_stands():
    hook = TokenRewards()
    _, collector, stats = collect(hook=hook)
    batch = collector.buffer[:]
    np.testing.assert_allclose(batch.rew, (batch.obs >= 0).sum(1) + batch.act / 100, rtol=1e-6)  # the prompt has one token
    assert batch.rew.sum() == pytest.approx(hook.rewards_placed, abs=1e-4)
    assert batch.rew.sum() == pytest.approx(float(stats.returns.sum()), abs=1e-4)  # the terminal sums, as tianshou saw them
    np.testing.assert_array_equal(batch.token_stream, batch.act % 2)


def test_without_the_hook_the_sum_stands_on_the_last_token():
    _, collector, _ = collect()
    batch = collector.buffer[:]
    assert (batch.rew[~batch.done] == 0).all() and (batch.rew[batch.done] > 0).all()


def advantages(algorithm, collector):
    batch, indices = collector.buffer.sample(0)
    return batch, algorithm._add_returns_and_advantages(batch, collector.buffer, indices)


def test_returns_stay_inside_streams():
    batch, done = advantages(*collect(hook=TokenRewards())[:2])
    starts = [*np.flatnonzero((batch.obs >= 0).sum(1) == 1), len(batch)]
    for start, end in pairwise(starts):
        rows = (batch.rew[start:end], done.v_s[start:end].numpy(), batch.act[start:end] % 2)
        expected = stream_advantages(*rows, gamma=0.9, gae_lambda=0.8)
        np.testing.assert_allclose(done.adv[start:end].numpy(), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(done.returns[start:end].numpy(), expected + rows[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length_limit", ["terminate", "truncate"])
def test_one_stream_gives_the_librarys_own_advantages(length_limit):
    algorithm, collector, _ = collect(hook=TokenRewards(), streams_fn=None, length_limit=length_limit)
    _, ours = advantages(algorithm, collector)
    batch, indices = collector.buffer.sample(0)
    theirs = PPO._add_returns_and_advantages(algorithm, batch, collector.buffer, indices)  # calls ours for the returns
    values, after = theirs.v_s.numpy(), algorithm.critic(batch.obs_next).detach().flatten()
    _, expected = PPO.compute_episodic_return(batch, collector.buffer, indices, after, values, gamma=0.9, gae_lambda=0.8)
    np.testing.assert_allclose(ours.adv.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_text_that_a_time_limit_cut_is_an_error():
    with pytest.raises(ValueError, match="a time limit from outside has cut it"):
        collect(hook=TokenRewards(), max_episode_steps=2)


def test_the_example_learns_copying():
    curve = EXAMPLE.learn("tokens", 12_000, 0)
    assert curve[0][1] < 0.15 and curve[-1][1] > 0.22
