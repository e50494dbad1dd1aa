"""PPO of Stable-Baselines3, unmodified, on token rewards that come only when the text is finished.

python examples/sb3_ppo.py            # token rewards against their sum at the end, 3 seeds
python examples/sb3_ppo.py --quick
"""

import sys

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from textgym_agents.integrations.sb3_features import RecentTokens

from textgym.integrations.sb3 import TextGenVecEnv, TokenRewardBuffer, TokenRewards


class Curve(BaseCallback):
    """Notes the mean score of the texts that ended in the last 2,048 tokens; a text's score is the sum of its rewards."""

    def __init__(self):
        super().__init__()
        self.points, self.scores = [(0, 0.0)], []

    def _on_step(self) -> bool:
        self.scores += [float(info["token_rewards"].sum()) for info in self.locals["infos"] if info]
        if self.num_timesteps - self.points[-1][0] >= 2048 and self.scores:
            self.points.append((self.num_timesteps, float(np.mean(self.scores))))
            self.scores = []
        return True


def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    """Train on 12 symbols. ``rewards``: "tokens", or "sum": what SB3 sees by itself. Returns (tokens so far, score)."""
    env = TextGenVecEnv(gym.make_vec("textgym:textgym/Copying-v0", num_envs=32, length=12))
    options = {"policy_kwargs": {"features_extractor_class": RecentTokens}, "seed": seed, "device": "cpu"}
    options |= {"n_steps": 32, "batch_size": 256, "n_epochs": 4, "learning_rate": 2e-3}
    curve = Curve()
    if rewards == "tokens":  # a right symbol is its own token's doing: nothing need flow back, so gamma may be 0
        model = PPO("MlpPolicy", env, gamma=0.0, rollout_buffer_class=TokenRewardBuffer, **options)
        model.learn(tokens, callback=[curve, TokenRewards()])
    else:  # the sum stands on the last token, so all of it must
        PPO("MlpPolicy", env, gamma=1.0, gae_lambda=1.0, **options).learn(tokens, callback=curve)
    return curve.points[1:]


def main() -> None:
    budget, seeds = (3_000, 1) if "--quick" in sys.argv else (40_000, 3)
    for seed in range(seeds):
        by_sum, by_tokens = learn("sum", budget, seed), learn("tokens", budget, seed)
        reached = next((n for n, score in by_tokens if score >= by_sum[-1][1]), None)
        print(f"seed {seed}: sum {by_sum[-1]}, token rewards {by_tokens[-1]}, as good as the sum after {reached}", flush=True)


if __name__ == "__main__":
    main()
