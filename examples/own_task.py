"""A task of your own, and PPO on it.

python examples/own_task.py
python examples/own_task.py --quick
textgym train --task own_task:Countdown          # the same from the command line, in this folder
"""

import sys

from textgym_agents import PPOConfig
from textgym_agents.train import TrainConfig, train

import textgym
from textgym import Prompt, Span, Task


class Countdown(Task):
    """Write digits that fall: each digit that is smaller than the one before earns 1, each other one costs 1."""

    max_prompt_tokens = 1
    max_new_tokens = 6

    def __init__(self, tokenizer=None):  # --model hands its own tokenizer in
        self.tokenizer = tokenizer or textgym.symbol_tokenizer([*"0123456789"])

    def sample(self, rng):
        return Prompt(str(rng.integers(5, 10)))

    def rewards(self, episodes):
        return [
            [
                Span(i, i + 1, 1.0 if digit < before else -1.0)
                for i, (before, digit) in enumerate(zip(e.prompt.text + e.text, e.text, strict=False))
            ]
            for e in episodes
        ]

    def success(self, episode):
        digits = episode.prompt.text + episode.text
        return len(episode.text) > 2 and all(b < a for a, b in zip(digits, digits[1:], strict=False))


def main() -> None:
    quick = "--quick" in sys.argv
    ppo = PPOConfig(episodes_per_update=64 if quick else 256, learning_rate=1e-3)
    run = train(TrainConfig(task=Countdown(), updates=2 if quick else 40, num_slots=64, eval_episodes=128, ppo=ppo))
    for name in ("success", "return", "tokens"):
        print(f"{name:>8}: {run.before[name]:6.2f} -> {run.after[name]:6.2f}")


if __name__ == "__main__":
    main()
