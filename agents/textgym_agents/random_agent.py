"""An agent without a model: tokens drawn uniformly, nothing learned. A floor for tables, and the smallest agent there is.

Left out on purpose: everything that an agent need not have. It keeps the whole protocol in a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from textgym_agents.collector import Collector
from textgym_agents.figures import summary
from textgym_agents.policy import Step


class RandomPolicy:
    """Draws each token uniformly: log pi = -log of how many there are, V or those that the task allows.

    Args:
        vocab_size: V.
        seed: of the draws.
    """

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self.vocab_size = vocab_size
        self.rng = np.random.default_rng(seed)

    def act(self, obs: Any, slots: Sequence[int] | np.ndarray, allowed: torch.Tensor | None = None) -> Step:
        """Draw a token for each of ``slots``, among ``allowed``, bool (n, V), where the task has action masks."""
        n = len(slots)
        device = obs.device if isinstance(obs, torch.Tensor) else "cpu"
        counts = np.full(n, self.vocab_size) if allowed is None else allowed.sum(1).cpu().numpy()
        tokens = torch.from_numpy(self.rng.integers(counts))
        if allowed is not None:  # the token of that number among those allowed
            tokens = torch.searchsorted(allowed.long().cumsum(1).cpu(), tokens[:, None] + 1).squeeze(1)
        logprobs = -torch.from_numpy(np.log(counts)).float()
        return Step(tokens.to(device), logprobs.to(device), torch.zeros(n, device=device))

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget nothing: nothing is remembered."""


class RandomAgent:
    """Plays at random through the whole budget.

    Args:
        policy: tells the size of the vocabulary; it is not played.
        seed: of the draws.
        episodes_per_update: episodes of each figure.
    """

    def __init__(self, policy: Any, *, seed: int = 0, episodes_per_update: int = 256) -> None:
        self.policy = RandomPolicy(policy.model.vocab_size, seed)
        self.episodes_per_update = episodes_per_update

    def learn(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        budget: int,
        callback: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Play ``budget`` episodes, rounded down to whole collections; learn nothing."""
        collector = Collector(envs, self.policy)
        for done in range(self.episodes_per_update, budget + 1, self.episodes_per_update):
            rollout = collector.collect(self.episodes_per_update)
            if callback is not None:
                callback({**summary(rollout), "episodes": done})

    def save(self, folder: str | Path) -> None:
        """Write the size of the vocabulary."""
        text = json.dumps({"vocab_size": self.policy.vocab_size})
        (Path(folder) / "random_agent.json").write_text(text + "\n", encoding="utf-8")

    def load(self, folder: str | Path) -> None:
        """Read what ``save`` wrote."""
        text = (Path(folder) / "random_agent.json").read_text(encoding="utf-8")
        self.policy.vocab_size = int(json.loads(text)["vocab_size"])
