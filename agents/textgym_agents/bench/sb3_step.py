"""Stable-Baselines3's PPO on text as its users write it down: one environment per slot, a policy that reads the whole text.

Left out on purpose: a KV cache, which SB3 has no place for; every sampled token, and every token learned from, is one pass
over the whole text before it. That takes so long that only a part of the load is played, in a steady state, and counted in
episodes by its tokens. There is no reference model and no KL penalty either, which SB3's PPO does not have.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from textgym import TextGenEnv
from textgym_agents.bench.load import Load
from textgym_agents.model import ActorCritic


class WholeText(BaseFeaturesExtractor):
    """The last token's hidden state, from a pass over the texts of the batch, cut to the longest of them."""

    def __init__(self, observation_space: gym.Space[Any], model: ActorCritic) -> None:
        super().__init__(observation_space, features_dim=model.policy_size)
        self.model = model

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, context_length), right-padded with -1 -> (B, hidden)."""
        lengths = (observations >= 0).sum(1)
        ids = observations[:, : int(lengths.max())].long().clamp(min=0)
        hidden = self.model.hidden(ids, torch.arange(ids.shape[1]).expand_as(ids))
        return hidden[torch.arange(len(ids)), lengths - 1]


class ForcedEnd(gym.Wrapper[Any, Any, Any, Any]):
    """Ends each text where the load says."""

    def __init__(self, env: gym.Env[Any, Any], load: Load) -> None:
        super().__init__(env)
        self.load = load
        self.left = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Look the target up."""
        obs, info = self.env.reset(**kwargs)
        self.left = self.load.target(obs[obs >= 0].tolist())
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Put end-of-text where it is due and nowhere else."""
        self.left -= 1
        eos = self.load.tokenizer.eos_token_id
        return self.env.step(eos if self.left == 0 else eos + 1 if action == eos else action)


class SB3Step:
    """One PPO step of SB3 on a part of the load.

    Args:
        model: policy's trunk.
        load: prompts and lengths.
        slots: environments.
        episodes: how many texts' worth of tokens to play.
        minibatches: optimizer steps per epoch.
        epochs: passes over what was played.
    """

    def __init__(
        self, model: ActorCritic, load: Load, slots: int, episodes: float, minibatches: int, epochs: int, seed: int
    ) -> None:
        envs = DummyVecEnv([lambda: ForcedEnd(TextGenEnv(load), load)] * slots)
        mean = load.useful / len(load.prompts)
        steps = max(2, round(mean * episodes / slots))
        self.tokens = steps * slots
        self.episodes = self.tokens / mean
        size = self.tokens // minibatches
        self.ppo = PPO(
            ActorCriticPolicy,
            envs,
            n_steps=steps,
            batch_size=size if self.tokens % size == 0 else self.tokens,
            n_epochs=epochs,
            policy_kwargs={
                "features_extractor_class": WholeText,
                "features_extractor_kwargs": {"model": model},
                "net_arch": [],
            },
            device="cpu",
            seed=seed,
        )
        # Texts have the lengths of a steady state, as in a run that plays the whole load: without this all would be short.
        envs.seed(seed)
        rng = np.random.default_rng(seed)
        obs = envs.reset()
        for _ in range(2 * load.max_new_tokens):
            obs = envs.step(rng.integers(2, len(load.tokenizer), size=slots))[0]
        self.ppo._last_obs = obs  # type: ignore[assignment]
        self.ppo._last_episode_starts = np.zeros(slots, dtype=np.bool_)

    def run(self) -> tuple[float, float]:
        """Play and learn once. Returns episodes, by their tokens, and seconds."""
        start = time.perf_counter()
        self.ppo.learn(total_timesteps=self.tokens, reset_num_timesteps=False)
        return self.episodes, time.perf_counter() - start

    def close(self) -> None:
        """Close the environments."""
        self.ppo.get_env().close()  # type: ignore[union-attr]
