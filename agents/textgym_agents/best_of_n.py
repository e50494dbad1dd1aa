"""Best of n: write n texts for each prompt, learn the best by heart.

Left out on purpose: any weight. What is kept is kept whole, as in supervised fine-tuning; what is not is not learned from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from textgym_agents.agent_config import at_least, check_types, in_range, whole_groups
from textgym_agents.checkpoint import write_whole
from textgym_agents.collector import Collector
from textgym_agents.figures import summary
from textgym_agents.groups import best_of_group, stream_sums
from textgym_agents.learner import Cut, Learner, check_group_size, check_one_process, updates_of
from textgym_agents.losses import masked_mean
from textgym_agents.minibatch import minibatches
from textgym_agents.policy import CausalLMPolicy


@dataclass(frozen=True)
class BestOfNConfig:
    """What best of n can be told."""

    episodes_per_update: int = 256
    """Episodes of a collection."""
    group_size: int = 2
    """n, slots that see the same prompts; divides the number of slots."""
    epochs: int = 2
    """Passes over what is kept."""
    minibatch_episodes: int = 64
    """Episodes per optimizer step."""
    learning_rate: float = 4e-4
    """Step size of AdamW, at the start; it falls linearly to 0 over the budget."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 2, "group_size")
        at_least(self, 1, "episodes_per_update", "epochs", "minibatch_episodes")
        whole_groups(self)
        in_range(self, "learning_rate", above=0)
        in_range(self, "max_grad_norm", above=0, most=math.inf)


class BestOfN:
    """Rejection fine-tuning on the best of n (RAFT, Dong et al., 2023), per stream.

    In each group, for each stream, the tokens of the episode with the largest return of that stream are kept; loss =
    -mean log pi over the kept tokens. With one stream that is the best text of each group; with a constant mass, where whole
    texts all sum to the same, each part is still taken from the text in which it did best. Groups whose members are all alike
    keep nothing.

    Args:
        policy: a ``CausalLMPolicy``; its language model learns.
        config: see ``BestOfNConfig``.
        seed: of the order of minibatches.

    Raises:
        ValueError: there are several processes.
    """

    def __init__(self, policy: CausalLMPolicy, config: BestOfNConfig | None = None, *, seed: int = 0) -> None:
        self.policy = policy
        self.config = config or BestOfNConfig()
        self.group_size = self.config.group_size
        """Read by ``train``, which makes the environment so."""
        self.learner = Learner(policy, learning_rate=self.config.learning_rate, max_grad_norm=self.config.max_grad_norm)
        self._shuffle = torch.Generator().manual_seed(seed)
        check_one_process(self, "each would keep another number of texts, and take another number of steps")

    def learn(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        budget: int,
        callback: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Learn from ``budget`` episodes (per process), rounded down to whole updates; ``callback`` hears of each.

        Raises:
            ValueError: the environment's slots are not in groups of ``group_size``.
        """
        check_group_size(envs, self.group_size)
        config, learner = self.config, self.learner
        updates, collector = updates_of(budget, config.episodes_per_update), Collector(envs, self.policy)
        for update in range(learner.progress.get("update", 0), updates):
            learner.anneal(update / updates)
            rollout = collector.collect(config.episodes_per_update)
            mask, streams = rollout.agent_mask, rollout.streams
            returns = stream_sums(rollout.token_rewards, streams, mask)
            kept = best_of_group(returns, streams, mask, rollout.group_id, rollout.episode_id)
            chosen = replace(rollout, agent_mask=kept)
            rows = kept.any(1).nonzero().flatten()

            def loss(logprobs: Tensor, cut: Cut, count: Tensor, kept: Tensor = kept) -> tuple[Tensor, dict[str, Tensor]]:
                return -masked_mean(logprobs, cut(kept), count), {}

            steps: list[dict[str, float]] = []
            if len(rows):
                size = min(config.minibatch_episodes, len(rows))
                for part in minibatches(len(rows), size, config.epochs, len(rows), self._shuffle):
                    steps.append(learner.step(chosen, rows[part.to(rows.device)], loss))
            figures = {"loss": sum(step["loss"] for step in steps) / max(1, len(steps)), "kept": float(kept.sum() / mask.sum())}
            learner.progress = {"update": update + 1, "learned": learner.progress.get("learned", 0) + len(rollout)}
            if callback is not None:
                callback({"update": update + 1, **summary(rollout), **figures, "episodes": learner.progress["learned"]})
        learner.progress = {}

    def save(self, folder: str | Path) -> None:
        """Write the policy; see ``ActorCritic.save``."""
        write_whole(Path(folder), self.policy.model.save)

    def load(self, folder: str | Path) -> None:
        """Read the policy that ``save`` wrote."""
        self.policy.model.load(folder)

    def save_state(self, folder: str | Path) -> None:
        """Write what a resumed ``learn`` needs, between two updates."""
        self.learner.save_state(folder, self._shuffle)

    def load_state(self, folder: str | Path) -> None:
        """Read what ``save_state`` wrote; the next ``learn`` goes on there."""
        self.learner.load_state(folder, self._shuffle)
