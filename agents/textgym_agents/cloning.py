"""Behaviour cloning: the likelihood of a task's demonstrations, and nothing else.

Left out on purpose: rewards and episodes of the policy's own. ``warm_up`` is the same objective before another agent learns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from textgym_agents.agent_config import at_least, check_types, in_range
from textgym_agents.checkpoint import write_whole
from textgym_agents.learner import Learner, updates_of
from textgym_agents.losses import masked_mean
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.warmup import demonstration_batch


@dataclass(frozen=True)
class CloningConfig:
    """What behaviour cloning can be told."""

    episodes_per_update: int = 256
    """Demonstrations drawn at a time; each is learned from once."""
    minibatch_episodes: int = 64
    """Demonstrations per optimizer step."""
    learning_rate: float = 1e-3
    """Step size of AdamW, at the start; it falls linearly to 0 over the budget."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "episodes_per_update", "minibatch_episodes")
        in_range(self, "learning_rate", above=0)
        in_range(self, "max_grad_norm", above=0, most=math.inf)


class Cloning:
    """Behaviour cloning (Pomerleau, 1989): loss = -mean over the agent's tokens of the demonstrations of log pi(a_t | s_t).

    Args:
        policy: a ``CausalLMPolicy``; its language model learns.
        config: see ``CloningConfig``.
        seed: of the demonstrations drawn.
    """

    def __init__(self, policy: CausalLMPolicy, config: CloningConfig | None = None, *, seed: int = 0) -> None:
        self.policy = policy
        self.config = config or CloningConfig()
        self.learner = Learner(policy, learning_rate=self.config.learning_rate, max_grad_norm=self.config.max_grad_norm)
        self.seed = seed

    def learn(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        budget: int,
        callback: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Learn from ``budget`` demonstrations of the environment's task; the environment itself is not played.

        Raises:
            ValueError: the task has no demonstrations, or one does not fit.
        """
        rules, size, learner = envs.unwrapped.rules, self.config.episodes_per_update, self.learner  # type: ignore[attr-defined]
        updates = updates_of(budget, size)
        for update in range(learner.progress.get("update", 0), updates):
            learner.anneal(update / updates)
            # A generator per update, so that a resumed run draws what the run would have drawn; and per process.
            rng = np.random.default_rng([self.seed, update, learner.accelerator.process_index])
            examples = list(rules.task.demonstrations(rng, size))
            if not examples:
                raise ValueError(
                    f"{type(rules.task).__name__} has no demonstrations to learn from; give it some, or use another agent"
                )
            losses = []
            for start in range(0, len(examples), self.config.minibatch_episodes):
                batch = demonstration_batch(examples[start : start + self.config.minibatch_episodes], rules)
                ids, prompt_lengths, mask = (tensor.to(self.policy.device) for tensor in batch)
                logprobs, _, _ = learner.model(ids, prompt_lengths, mask)
                count: Any = learner.accelerator.reduce(mask.sum().float(), "mean")  # as in ``Learner.step``
                loss = -masked_mean(logprobs, mask, count)
                learner.optimizer.zero_grad(set_to_none=True)
                learner.backward(loss, torch.arange(start, start + len(ids)))
                learner.finish(torch.arange(start, start + len(ids)))
                losses.append(loss.item())
            learner.progress = {"update": update + 1}
            if callback is not None:
                callback({"update": update + 1, "episodes": (update + 1) * size, "loss": sum(losses) / len(losses)})
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
