"""Stable-Baselines3's DQN learns to copy, from token rewards or from their sum: ``python examples/sb3_dqn.py``.

With token rewards a replay buffer writes each token's reward to where its step stands, when the text is finished.
"""

import sys

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

import textgym  # noqa: F401 (registers the ids)
from textgym.integrations.sb3 import TextGenVecEnv
from textgym.integrations.sb3_dqn import TokenReplayBuffer


class OneHot(BaseFeaturesExtractor):
    """Turns tokens (B, L), -1 where there is none, into one number per place and token."""

    def __init__(self, space):
        self.kinds = int(space.high.max()) + 2
        super().__init__(space, space.shape[0] * self.kinds)

    def forward(self, tokens):
        return torch.nn.functional.one_hot(tokens.long() + 1, self.kinds).flatten(1).float()


class Curve(BaseCallback):
    """Notes the mean score of the texts that ended since the last point; here a text is paid its score."""

    def _init_callback(self):
        self.points, self.scores, self.next = [], [], 2_000

    def _on_step(self):
        self.scores += self.locals["rewards"][self.locals["dones"]].tolist()
        if self.num_timesteps >= self.next and self.scores:
            self.points.append((self.num_timesteps, float(np.mean(self.scores))))
            self.scores, self.next = [], self.next + 2_000
        return True


def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    """Learn from ``rewards`` "tokens" or "sum"; gives the curve, (tokens so far, score)."""
    env = TextGenVecEnv(gym.make_vec("textgym:textgym/Copying-v0", num_envs=8))
    options = {"replay_buffer_class": TokenReplayBuffer} if rewards == "tokens" else {}
    options |= {"policy_kwargs": {"features_extractor_class": OneHot}, "learning_rate": 1e-3, "learning_starts": 500}
    options |= {"gamma": 1.0, "train_freq": 1, "gradient_steps": 2, "target_update_interval": 200, "buffer_size": 20_000}
    model = DQN("MlpPolicy", env, seed=seed, exploration_fraction=0.3, exploration_final_eps=0.02, **options)
    curve = Curve()
    model.learn(tokens, callback=curve)
    return curve.points


if __name__ == "__main__":
    for kind in ("tokens", "sum"):
        print(kind, [(n, round(score, 2)) for n, score in learn(kind, 4_000 if "--quick" in sys.argv else 40_000, seed=0)])
