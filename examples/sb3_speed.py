"""Tokens per second of Stable-Baselines3's PPO with a language model: cached, and running whole texts.

python examples/sb3_speed.py            # 32 slots, texts of up to 128 and of up to 256 tokens; some minutes
python examples/sb3_speed.py --quick
"""

import os
import sys
import time

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from textgym_agents import ActorCritic, tiny_gpt2
from textgym_agents.bench.sb3_step import WholeText
from textgym_agents.integrations.sb3_policy import LanguageModelPolicy

import textgym
from textgym.integrations.sb3 import TextGenVecEnv, TokenRewardBuffer, TokenRewards

TOKENIZER = textgym.symbol_tokenizer([chr(0x4E00 + i) for i in range(510)])


class Clock(BaseCallback):
    """Times playing; what is left of ``learn`` is learning."""

    def _on_rollout_start(self) -> None:
        self.started = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.played = time.perf_counter()


def measure(ours: bool, slots: int, length: int, epochs: int) -> tuple[float, float]:
    """Play ``length`` tokens in each slot, learn from them ``epochs`` times. Returns tokens per second of each."""
    env = gym.make_vec(
        "textgym:TextGen-v0", num_envs=slots, prompts=["一"], tokenizer=TOKENIZER, max_new_tokens=length,
        reward_fn=lambda episodes: [np.ones(len(e.ids)) for e in episodes],
    )  # fmt: skip
    context = env.single_observation_space.shape[0]

    def make_model() -> ActorCritic:
        return ActorCritic(tiny_gpt2(len(TOKENIZER), context), TOKENIZER, context)

    options = {"n_steps": length, "batch_size": slots * length // 4, "n_epochs": epochs, "seed": 0, "device": "cpu"}
    if ours:
        options |= {"rollout_buffer_class": TokenRewardBuffer, "rollout_buffer_kwargs": {"whole_texts": True}}
        model = PPO(LanguageModelPolicy, TextGenVecEnv(env), policy_kwargs={"make_model": make_model}, **options)
    else:
        features = {"features_extractor_class": WholeText, "features_extractor_kwargs": {"model": make_model()}, "net_arch": []}
        model = PPO(ActorCriticPolicy, TextGenVecEnv(env), policy_kwargs=features, **options)
    clock = Clock()
    model.learn(slots * length, callback=[clock, TokenRewards()] if ours else clock)
    learned = model.rollout_buffer.tokens_learned if ours else slots * length
    return slots * length / (clock.played - clock.started), learned / (time.perf_counter() - clock.played)


def compare(slots: int, length: int, epochs: int, repeats: int) -> None:
    print(f"{slots} slots, texts of up to {length} tokens, {epochs} epochs")
    both: list[float] = []
    for _ in range(repeats):
        figures = []
        for ours in (False, True):
            play, learn = measure(ours, slots, length, epochs)
            figures.append(1 / (1 / play + 1 / learn))
            name = "slot cache" if ours else "whole text"
            print(
                f"{name}: {figures[-1]:8.0f} tokens/s (playing {play:.0f}, learning {learn:.0f}); load {os.getloadavg()[0]:.1f}"
            )
        both.append(figures[1] / figures[0])
        print(f"ratio {both[-1]:.1f}", flush=True)
    print(f"median ratio of {repeats}: {np.median(both):.1f} ({min(both):.1f} to {max(both):.1f})")


def main() -> None:
    print(f"GPT-2 shape 2 x 64, V {len(TOKENIZER)}, 4 minibatches an epoch, first rollout")
    for ours in (False, True):
        measure(ours, 4, 16, 1)  # what torch and transformers do once
    if "--quick" in sys.argv:
        compare(4, 16, 2, repeats=1)
        return
    compare(32, 128, 2, repeats=5)
    compare(32, 128, 1, repeats=5)
    compare(32, 256, 1, repeats=3)


if __name__ == "__main__":
    main()
