"""RLlib's model: what it says depends on tokens, and it forbids what the mask forbids."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("ray")
import torch
from integration_kit import arguments
from ray.rllib.core.columns import Columns
from textgym_agents.integrations.rllib_module import TokenModule

import textgym  # noqa: F401 (registers the ids)


def module(env):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TokenModule(observation_space=env.observation_space, action_space=env.action_space)


def test_actor_and_critic_read_the_integers_of_an_observation():
    env = gym.make("TextGen-v0", **arguments())
    net = module(env)
    batch = {Columns.OBS: torch.as_tensor(np.stack([env.reset(seed=seed)[0] for seed in range(8)]))}
    logits, values = net._forward(batch)[Columns.ACTION_DIST_INPUTS], net.compute_values(batch)
    assert logits.shape == (8, env.action_space.n) and values.shape == (8,)
    prompts = batch[Columns.OBS][:, 0]
    same = (prompts[:, None] == prompts).numpy()
    assert not same.all()
    np.testing.assert_array_equal(np.isclose(values.detach()[:, None], values.detach()), same)


def test_no_token_is_given_that_the_mask_forbids():
    env = gym.make("TextGen-v0", task="number_duel", enforce_grammar=True, observation="dict")
    net, seen = module(env), env.reset(seed=0)[0]
    batch = {Columns.OBS: {key: torch.as_tensor(value)[None] for key, value in seen.items()}}
    chances = net._forward(batch)[Columns.ACTION_DIST_INPUTS].softmax(-1)
    assert chances[0, seen["action_mask"] == 1].sum() == 1 and seen["action_mask"].sum() == 1  # nothing but "A"
    assert net.compute_values(batch).shape == (1,)
