"""Stable-Baselines3's DQN learns to copy, from token rewards or from their sum: ``python examples/sb3_dqn.py``.

With token rewards a replay buffer writes each token's reward to where its step stands, when the text is finished.
"""

import sys

import gymnasium as gym
import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from textgym_agents.integrations.sb3_features import RecentTokens

import textgym  # noqa: F401 (registers the ids)
from textgym.integrations.sb3 import TextGenVecEnv
from textgym.integrations.sb3_dqn import TokenReplayBuffer


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
    env = TextGenVecEnv(gym.make_vec("textgym:textgym/Copying-v0", num_envs=8, length=8))
    options = {"replay_buffer_class": TokenReplayBuffer} if rewards == "tokens" else {}
    options |= {"policy_kwargs": {"features_extractor_class": RecentTokens}, "learning_rate": 1e-3, "learning_starts": 500}
    options["gamma"] = 0.0 if rewards == "tokens" else 1.0  # a right symbol is its own token's doing: nothing need flow back
    options |= {"train_freq": 1, "gradient_steps": 2, "target_update_interval": 200, "buffer_size": 20_000}
    model = DQN("MlpPolicy", env, seed=seed, exploration_fraction=0.3, exploration_final_eps=0.02, **options)
    curve = Curve()
    model.learn(tokens, callback=curve)
    return curve.points


if __name__ == "__main__":
    for kind in ("tokens", "sum"):
        print(kind, [(n, round(score, 2)) for n, score in learn(kind, 4_000 if "--quick" in sys.argv else 40_000, seed=0)])
