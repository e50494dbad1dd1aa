"""REINFORCE with streams: the reward-to-go of a token's own stream, less the stream's mean.

Left out on purpose: a critic, ratios and clips. One optimizer step per collection, on what the policy itself has just
written, so that the gradient is that of the policy as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from textgym_agents.agent_config import at_least, check_types, in_range
from textgym_agents.checkpoint import write_whole
from textgym_agents.collector import Collector
from textgym_agents.constant_total import assigner_of, warn_credit
from textgym_agents.figures import summary
from textgym_agents.groups import rewards_to_go, stream_means
from textgym_agents.learner import Cut, Learner, updates_of
from textgym_agents.losses import masked_mean
from textgym_agents.normalise import whiten
from textgym_agents.policy import CausalLMPolicy


@dataclass(frozen=True)
class ReinforceConfig:
    """What REINFORCE can be told."""

    episodes_per_update: int = 256
    """Episodes of a collection, which is one optimizer step."""
    learning_rate: float = 2e-3
    """Step size of AdamW, at the start; it falls linearly to 0 over the budget."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm."""
    baseline: bool = True
    """Subtract the mean reward-to-go of the stream's tokens over the collection."""
    whiten: bool = False
    """Scale advantages to deviation 1 over the collection."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "episodes_per_update")
        in_range(self, "learning_rate", above=0)
        in_range(self, "max_grad_norm", above=0, most=math.inf)


class Reinforce:
    """REINFORCE (Williams, 1992) with reward-to-go: loss = -mean over agent tokens of A_t log pi(a_t | s_t).

    A_t = G_t - b_k, with G_t the sum of the rewards of t's own stream k from t on, and b_k the mean of G over the
    collection's tokens of stream k. Where sampling leaves tokens out (top-k, top-p), log pi is the whole model's, and
    tokens are weighted with pi / pi_sampled, as in ``PPO``.

    Args:
        policy: a ``CausalLMPolicy``; its language model learns.
        config: see ``ReinforceConfig``.
        seed: not read, nothing is drawn here.
    """

    def __init__(self, policy: CausalLMPolicy, config: ReinforceConfig | None = None, *, seed: int = 0) -> None:
        self.policy = policy
        self.config = config or ReinforceConfig()
        self.learner = Learner(policy, learning_rate=self.config.learning_rate, max_grad_norm=self.config.max_grad_norm)

    def learn(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        budget: int,
        callback: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Learn from ``budget`` episodes (per process), rounded down to whole updates; ``callback`` hears of each."""
        size, learner = self.config.episodes_per_update, self.learner
        updates, collector = updates_of(budget, size), Collector(envs, self.policy)
        first = learner.progress.get("update", 0)
        for update in range(first, updates):
            learner.anneal(update / updates)
            rollout = collector.collect(size)
            warn_credit(assigner_of(envs), rollout, reward_to_go=True)
            mask = rollout.agent_mask
            advantages = rewards_to_go(rollout.token_rewards, rollout.streams, mask)
            if self.config.baseline:
                advantages = advantages - stream_means(advantages, rollout.streams, mask)
            if self.config.whiten:
                advantages = whiten(advantages, mask)

            _, weights = learner.as_evaluated(rollout, size)
            if weights is not None:
                advantages = weights * advantages

            def loss(logprobs: Tensor, cut: Cut, count: Tensor, a: Tensor = advantages, m: Tensor = mask) -> Any:
                return -masked_mean(logprobs * cut(a), cut(m), count), {}

            figures = learner.step(rollout, torch.arange(len(rollout), device=mask.device), loss)
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
        self.learner.save_state(folder)

    def load_state(self, folder: str | Path) -> None:
        """Read what ``save_state`` wrote; the next ``learn`` goes on there."""
        self.learner.load_state(folder)
