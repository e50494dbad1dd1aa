"""The same agent, untouched, on a duel with other rules, given as a task object from outside the package.

A wins with the larger number, B wins with the smaller one.

    python examples/asymmetric_duel.py
    python examples/asymmetric_duel.py --quick
"""

import sys

import numpy as np
from textgym_agents.train import TrainConfig, train

from textgym.tasks.number_duel import NumberDuel


class AsymmetricDuel(NumberDuel):
    """The number duel in which B is rewarded for the smaller number."""

    def rewards(self, episodes):
        """Turn B's reward around; A's, and the price of a broken text, stay as they are."""
        rewards = []
        for episode, paid in zip(episodes, super().rewards(episodes), strict=True):
            turned = np.array(paid)
            if self.success(episode):
                (second,) = super().streams([episode])
                turned[second == 1] *= -1
            rewards.append(turned)
        return rewards


def main() -> None:
    short = {"updates": 2, "warmup_steps": 60, "eval_episodes": 256} if "--quick" in sys.argv else {}
    run = train(TrainConfig(task=AsymmetricDuel(), **short))
    for name in ("first", "second", "well_formed"):
        print(f"{name:>11}: {run.before[name]:6.2f} -> {run.after[name]:6.2f}")


if __name__ == "__main__":
    main()
