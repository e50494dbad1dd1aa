import numpy as np
import pytest
import torch
from textgym_agents.bench.load import Load, LoadConfig, make_model

from textgym import TextGenEnv

pytest.importorskip("stable_baselines3")
from textgym_agents.bench.sb3_step import ForcedEnd, SB3Step, WholeText

SMALL = LoadConfig(episodes=8, mean_length=5.0, max_length=12, vocab_size=40, layers=1, width=16, heads=2)


def test_texts_end_at_their_targets_and_nowhere_else():
    load = Load(SMALL)
    env = ForcedEnd(TextGenEnv(load), load)
    for target in load.targets:
        env.reset()
        ends = [env.step(np.int64(load.tokenizer.eos_token_id))[2] for _ in range(target)]
        assert ends == [False] * (target - 1) + [True]


def test_features_are_the_last_tokens_whatever_stands_beside_it():
    load = Load(SMALL)
    model = make_model(SMALL, load)
    space = TextGenEnv(load).observation_space
    features = WholeText(space, model)
    obs = torch.full((2, load.context_length), -1.0)
    obs[0, :3] = torch.tensor([5.0, 6.0, 7.0])
    obs[1, :6] = torch.arange(6.0)
    torch.testing.assert_close(features(obs)[0], features(obs[:1])[0])
    torch.testing.assert_close(features(obs)[1], model.hidden(torch.arange(6)[None], torch.arange(6)[None])[0, -1])


def test_a_step_plays_and_learns_from_the_tokens_that_it_counts():
    load = Load(SMALL)
    step = SB3Step(make_model(SMALL, load), load, 4, 4.0, 2, 2, seed=0)
    before = step.ppo.policy.action_net.weight.clone()
    episodes, seconds = step.run()
    assert episodes == step.ppo.num_timesteps / load.targets.mean()
    assert episodes == pytest.approx(4.0, abs=1.0)
    assert seconds > 0
    assert not torch.equal(before, step.ppo.policy.action_net.weight)
    step.run()
    assert step.ppo.num_timesteps == 2 * step.tokens
    step.close()
