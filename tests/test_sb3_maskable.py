"""MaskablePPO on token rewards: the buffer hands each step out with the mask that it was sampled under."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import DummyVecEnv

import textgym
from textgym.integrations.sb3 import TextGenVecEnv, TokenRewards
from textgym.integrations.sb3_maskable import MaskableTokenRewardBuffer
from textgym.tasks.number_duel import NumberDuel


def make(kind, slots=4):
    if kind == "native":
        return TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=slots, task="number_duel", enforce_grammar=True))
    return DummyVecEnv([lambda: textgym.TextGenEnv("number_duel", enforce_grammar=True)] * slots)


@pytest.mark.parametrize("kind", ["native", "single"])
def test_sb3_contrib_finds_the_masks(kind):
    env = make(kind)
    env.reset()
    assert is_masking_supported(env)
    masks = get_action_masks(env)
    assert masks.shape == (4, env.action_space.n) and masks.sum(1).tolist() == [1, 1, 1, 1]  # nothing but "A"


@pytest.mark.parametrize("kind", ["native", "single"])
def test_each_step_comes_with_the_mask_that_it_was_sampled_under(kind):
    model = MaskablePPO(
        "MlpPolicy",
        make(kind),
        n_steps=40,
        batch_size=32,
        n_epochs=1,
        rollout_buffer_class=MaskableTokenRewardBuffer,
        policy_kwargs={"net_arch": [8]},
        seed=0,
    )
    model.learn(160, callback=TokenRewards())
    buffer, task = model.rollout_buffer, NumberDuel(enforce_grammar=True)
    assert len(buffer.advantages) == 4 * 39  # three texts of 13 tokens in each slot; the fourth has begun
    for samples in buffer.get(32):
        rows, lengths = samples.observations.numpy().astype(int), (samples.observations >= 0).sum(1).numpy()
        responses = [row[1:length] for row, length in zip(rows, lengths, strict=True)]
        expected = task.token_masks.rows[task.mask_numbers([None] * len(rows), responses)]
        assert np.array_equal(samples.action_masks.numpy(), expected.astype(np.float32))
        assert (samples.action_masks.gather(1, samples.actions.long()) == 1).all()
        assert samples.action_masks.dtype == torch.float32
    streams = (lengths - 1 > 5).astype(int)
    assert set(streams.tolist()) <= {0, 1}
    assert buffer.action_masks.dtype == np.uint8  # a bit per token
    assert buffer.paid == pytest.approx(0.0)  # the two masses of each text


def test_without_masking_every_token_is_allowed():
    model = MaskablePPO(
        "MlpPolicy",
        TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=4)),
        n_steps=32,
        batch_size=32,
        n_epochs=1,
        rollout_buffer_class=MaskableTokenRewardBuffer,
        policy_kwargs={"net_arch": [8]},
    )
    model.learn(128, callback=TokenRewards(), use_masking=False)
    assert all((samples.action_masks == 1).all() for samples in model.rollout_buffer.get(32))
