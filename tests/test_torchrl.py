"""TorchRL: whole texts out of what its collector hands out, each token with its reward; its own GAE stays inside streams."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("torchrl")
import torch
from integration_kit import arguments, example
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.objectives.value import GAE

from textgym.integrations.steps import stream_advantages
from textgym.integrations.torchrl import TokenRewards, wrap


def collect(place, frames=30, total=300, **more):
    """Play random texts in 3 slots through TorchRL's collector, ``frames`` at a time, which cuts texts."""
    envs = gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode="Disabled", keep_episodes=True, **arguments(**more))
    env = wrap(envs)
    env.set_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        collector = Collector(env, frames_per_batch=frames, total_frames=total, postproc=place)
        return envs, torch.cat([batch.clone() for batch in collector], 1)[0]


def test_every_released_token_is_handed_over_once_with_its_reward():
    place = TokenRewards()
    envs, steps = collect(place)
    paid = np.concatenate([release.token_rewards for _, release in envs.take_episodes()])
    rewards = steps["next", "reward"].flatten().numpy()
    np.testing.assert_allclose(np.sort(rewards), np.sort(paid), rtol=1e-6)
    assert rewards.sum(dtype=np.float64) == pytest.approx(place.rewards_placed, abs=1e-4)
    np.testing.assert_allclose(rewards, (steps["observation"] >= 0).sum(1) + steps["action"] / 100, rtol=1e-6)
    assert len(steps) + place.waiting == 300


@pytest.mark.parametrize("length_limit", ["terminate", "truncate"])
def test_the_librarys_gae_over_the_flat_axis_stays_inside_streams(length_limit):
    _, steps = collect(TokenRewards(), length_limit=length_limit)
    value = TensorDictModule(lambda obs: torch.sin(obs.float().sum(-1, keepdim=True)), ["observation"], ["state_value"])
    batch = GAE(gamma=0.9, lmbda=0.8, value_network=value)(steps[None].clone())[0]
    # A text's streams lie one after the other; its first token is the only one whose prompt stands alone.
    lengths = (steps["observation"] >= 0).sum(1).numpy()
    ends = np.flatnonzero(steps["next", "done"].flatten().numpy())
    texts, start = [], 0
    for end in ends:
        if start == 0 or 1 in lengths[start : end + 1]:
            texts.append([])
        texts[-1].append(np.arange(start, end + 1))
        start = end + 1
    checked = 0
    for text in texts:
        rows = np.concatenate(text)
        if sorted(lengths[rows]) != list(range(1, len(rows) + 1)):
            continue  # a stream without the text's first token came before: counted with the text before it
        order = rows[np.argsort(lengths[rows])]
        rewards, values = (batch[key].flatten().numpy()[order] for key in (("next", "reward"), "state_value"))
        final = steps["next", "truncated"].flatten().numpy()[order[-1]] * float(
            torch.sin(steps["next", "observation"][order[-1]].float().sum())
        )
        expected = stream_advantages(rewards, values, steps["action"].numpy()[order] % 2, final, gamma=0.9, gae_lambda=0.8)
        np.testing.assert_allclose(batch["advantage"].flatten().numpy()[order], expected, rtol=1e-4, atol=1e-4)
        checked += 1
    assert checked > 20


def test_a_batch_in_which_no_text_ends_says_what_to_do():
    with pytest.raises(ValueError, match="no text has ended in this batch, 3 steps are waiting"):
        collect(TokenRewards(), frames=3, total=3)


def test_another_mode_late_rewards_or_another_host_are_refused():
    for envs in (
        gym.make_vec("TextGen-v0", num_envs=2),
        gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", reward_workers=1),
        gym.vector.SyncVectorEnv([lambda: gym.make("TextGen-v0")]),
    ):
        with pytest.raises(ValueError, match="give a native one without reward workers"):
            wrap(envs)
        envs.close()
    with pytest.raises(ValueError, match="make it with infos='arrays'"):
        wrap(gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", infos="objects"))


def test_the_example_learns_copying():
    curve = example("torchrl_ppo").learn("tokens", 10_240, 0)
    assert curve[0][1] < 0.15 and curve[-1][1] > 0.22
