"""RLOO and GRPO with streams: several texts for each prompt, each compared with the others of its group.

Left out on purpose: a critic. What the other members of a group got for the same stream is the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import Tensor

from textgym_agents.agent_config import at_least, check_types, in_range, whole_groups
from textgym_agents.checkpoint import write_whole
from textgym_agents.collector import Collector
from textgym_agents.constant_total import assigner_of, warn_credit
from textgym_agents.figures import summary
from textgym_agents.groups import leave_one_out, places, rewards_to_go, standardise, stream_sums
from textgym_agents.kl import kl_loss
from textgym_agents.learner import Cut, Learner, check_group_size, updates_of
from textgym_agents.losses import masked_mean, ppo_policy_loss
from textgym_agents.minibatch import minibatches
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.rollout import Rollout


@dataclass(frozen=True)
class RLOOConfig:
    """What RLOO can be told."""

    episodes_per_update: int = 256
    """Episodes of a collection."""
    group_size: int = 2
    """Slots that see the same prompts, and are compared; divides the number of slots."""
    advantage: Literal["leave_one_out", "standardise"] = "leave_one_out"
    """"leave_one_out": less the mean of the others (RLOO). "standardise": in deviations from the group's mean (GRPO)."""
    credit: Literal["stream", "rest"] = "stream"
    """What is compared. "stream": the whole return of a token's stream. "rest": its reward-to-go in the stream, with that of
    the others' token of the same number in their stream."""
    epochs: int = 1
    """Passes over each collection."""
    minibatch_episodes: int = 64
    """Episodes per optimizer step."""
    clip_coef: float = 0.2
    """How far the probability ratio is trusted to either side of 1."""
    kl_coef: float = 0.0
    """Weight of the KL to the frozen reference, k3 in the loss; 0: no reference is kept."""
    learning_rate: float = 4e-4
    """Step size of AdamW, at the start; it falls linearly to 0 over the budget."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 2, "group_size")
        at_least(self, 1, "episodes_per_update", "epochs", "minibatch_episodes")
        whole_groups(self)
        at_least(self, 0, "kl_coef")
        in_range(self, "learning_rate", "clip_coef", above=0)
        in_range(self, "max_grad_norm", above=0, most=math.inf)


@dataclass(frozen=True)
class GRPOConfig(RLOOConfig):
    """What GRPO can be told: as RLOO, with other defaults."""

    advantage: Literal["leave_one_out", "standardise"] = "standardise"
    """As ``RLOOConfig.advantage``."""
    epochs: int = 2
    """Passes over each collection."""


class RLOO:
    """REINFORCE leave-one-out (Kool et al., 2019; Ahmadian et al., 2024), inside streams.

    A token of stream k in episode i has A = R_i^k - mean of R_j^k over the other members j of its group that have stream k.
    The loss is PPO's clipped surrogate: at the first optimizer step of a collection its gradient is that of -A log pi.

    Slots of a group start together, so that groups are whole; ``alone`` is the share of tokens in streams that no other member
    of their group has. Where sampling leaves tokens out (top-k, top-p), ratios and weights are those of ``PPO``.

    Args:
        policy: a ``CausalLMPolicy``; its language model learns.
        config: see ``RLOOConfig``.
        seed: of the order of minibatches.
    """

    def __init__(self, policy: CausalLMPolicy, config: RLOOConfig | None = None, *, seed: int = 0) -> None:
        self.policy = policy
        self.config = config or RLOOConfig()
        self.group_size = self.config.group_size
        """Read by ``train``, which makes the environment so."""
        self.learner = Learner(policy, learning_rate=self.config.learning_rate, max_grad_norm=self.config.max_grad_norm)
        self.reference = policy.model.frozen_reference() if self.config.kl_coef else None
        self._shuffle = torch.Generator().manual_seed(seed)

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
            warn_credit(assigner_of(envs), rollout, reward_to_go=config.credit == "rest")
            figures = self._update(rollout)
            learner.progress = {"update": update + 1, "learned": learner.progress.get("learned", 0) + len(rollout)}
            if callback is not None:
                callback({"update": update + 1, **summary(rollout), **figures, "episodes": learner.progress["learned"]})
        learner.progress = {}

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Give the advantages of a collection, float (E, T), and bool (E, T), which tokens had nothing to compare with."""
        mask, streams, rewards = rollout.agent_mask, rollout.streams, rollout.token_rewards
        if self.config.credit == "stream":
            units, keys = stream_sums(rewards, streams, mask), streams
        else:
            units = rewards_to_go(rewards, streams, mask)
            keys = streams * mask.shape[1] + places(streams, mask)
        compare = leave_one_out if self.config.advantage == "leave_one_out" else standardise
        return compare(units, keys, mask, rollout.group_id)

    def _update(self, rollout: Rollout) -> dict[str, float]:
        config, passes = self.config, self.learner.passes
        advantages, alone = self.advantages(rollout)
        old, weights = self.learner.as_evaluated(rollout, config.minibatch_episodes)
        reference: Tensor | None = None
        if self.reference is not None:
            reference = passes.evaluate(self.reference, rollout, config.minibatch_episodes)[0]

        def loss(logprobs: Tensor, cut: Cut, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            mask, clip = cut(rollout.agent_mask), config.clip_coef
            policy = ppo_policy_loss(
                logprobs,
                cut(old),
                cut(advantages),
                mask,
                clip_low=clip,
                clip_high=clip,
                weights=None if weights is None else cut(weights),
                count=count,
            )
            terms = {"approx_kl": policy.approx_kl, "clip_fraction": policy.clip_fraction}
            if reference is None:
                return policy.loss, terms
            kl = kl_loss(logprobs, cut(reference), mask, "k3", count)
            return policy.loss + config.kl_coef * kl, {**terms, "kl_loss": kl}

        order = minibatches(len(rollout), config.minibatch_episodes, config.epochs, config.episodes_per_update, self._shuffle)
        steps = [self.learner.step(rollout, episodes.to(self.policy.device), loss) for episodes in order]
        figures = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        return {**figures, "alone": float(masked_mean(alone.float(), rollout.agent_mask))}

    def save(self, folder: str | Path) -> None:
        """Write the policy; see ``ActorCritic.save``."""
        write_whole(Path(folder), self.policy.model.save)

    def load(self, folder: str | Path) -> None:
        """Read the policy that ``save`` wrote."""
        self.policy.model.load(folder)

    def save_state(self, folder: str | Path) -> None:
        """Write what a resumed ``learn`` needs, between two updates."""
        self.learner.save_state(folder, self._shuffle, self.reference)

    def load_state(self, folder: str | Path) -> None:
        """Read what ``save_state`` wrote; the next ``learn`` goes on there."""
        self.learner.load_state(folder, self._shuffle, self.reference)


class GRPO(RLOO):
    """Group relative policy optimisation (Shao et al., 2024): RLOO's loop with advantages in deviations of the group.

    A = (R_i^k - mean) / std over the group's members that have stream k; the loss is PPO's clipped surrogate plus
    ``kl_coef`` times the k3 estimate of the KL to the reference. Tokens of a minibatch weigh alike, whatever the length of
    their text.
    """

    def __init__(self, policy: CausalLMPolicy, config: GRPOConfig | None = None, *, seed: int = 0) -> None:
        super().__init__(policy, config or GRPOConfig(), seed=seed)
