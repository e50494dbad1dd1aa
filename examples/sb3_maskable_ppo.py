"""sb3-contrib's MaskablePPO learns to copy, from token rewards or from their sum: ``python examples/sb3_maskable_ppo.py``."""

import sys

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from textgym_agents.integrations.sb3_features import RecentTokens

from textgym.integrations.sb3 import TextGenVecEnv, TokenRewards
from textgym.integrations.sb3_maskable import MaskableTokenRewardBuffer
from textgym.tasks.copying import Copying


class Curve(BaseCallback):
    """Notes the mean score of the texts that ended since the last point; here a text is paid its score."""

    def _init_callback(self):
        self.points, self.scores = [], []

    def _on_step(self):
        return self.scores.extend(self.locals["rewards"][self.locals["dones"]].tolist()) is None

    def _on_rollout_end(self):
        self.points.append((self.num_timesteps, float(np.mean(self.scores))))
        self.scores = []


def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    """Learn from ``rewards`` "tokens" or "sum"; gives the curve, (tokens so far, score)."""
    task = Copying(length=12)
    task.token_masks = np.isin(np.arange(len(task.tokenizer)), task.tokenizer.encode(task.letters))  # letters alone
    gamma = 0.0 if rewards == "tokens" else 1.0  # a right symbol is its own token's doing: nothing need flow back
    env = TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=16, task=task))
    options = {"rollout_buffer_class": MaskableTokenRewardBuffer} if rewards == "tokens" else {}
    network = {"features_extractor_class": RecentTokens, "net_arch": [256, 256], "activation_fn": torch.nn.ReLU}
    options |= {"policy_kwargs": network, "n_steps": 64, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}
    model = MaskablePPO("MlpPolicy", env, seed=seed, gamma=gamma, gae_lambda=0.95, **options)
    curve = Curve()
    model.learn(tokens, callback=[curve, TokenRewards()] if rewards == "tokens" else curve)
    return curve.points


if __name__ == "__main__":
    for kind in ("tokens", "sum"):
        print(kind, [(n, round(score, 2)) for n, score in learn(kind, 4_000 if "--quick" in sys.argv else 48_000, seed=0)])
