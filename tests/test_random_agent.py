import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from agent_kit import play_kit
from textgym_agents.random_agent import RandomAgent, RandomPolicy


def test_every_token_is_drawn_alike_and_its_logprob_is_that_of_the_draw():
    step = RandomPolicy(5, seed=0).act(np.zeros((4000, 3)), np.arange(4000))
    assert step.logprobs.unique().tolist() == [pytest.approx(-math.log(5))]
    assert step.tokens.dtype == torch.int64
    assert (step.tokens.bincount(minlength=5) > 700).all()


def test_it_plays_its_budget_and_is_read_back(letters, tmp_path):
    policy, envs = play_kit(letters)
    seen = []
    agent = RandomAgent(policy, episodes_per_update=8)
    agent.learn(envs, 20, seen.append)
    assert [figures["episodes"] for figures in seen] == [8, 16]
    assert len(envs.take_episodes()) == 16
    agent.save(tmp_path)
    other = RandomAgent(SimpleNamespace(model=SimpleNamespace(vocab_size=3)))
    other.load(tmp_path)
    assert other.policy.vocab_size == len(letters)
