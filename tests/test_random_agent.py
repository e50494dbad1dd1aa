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


def test_where_the_task_has_action_masks_only_allowed_tokens_are_drawn_all_alike():
    allowed = torch.tensor([[False, True, False, True, True], [True, False, False, False, False]]).repeat(1500, 1)
    step = RandomPolicy(5, seed=0).act(np.zeros((3000, 3)), np.arange(3000), allowed)
    assert allowed.gather(1, step.tokens[:, None]).all()
    assert (step.tokens[::2].bincount(minlength=5)[[1, 3, 4]] > 400).all()
    assert step.logprobs[:2].tolist() == [pytest.approx(-math.log(3)), 0.0]
