"""What small agents share: an optimizer step on a loss over tokens, and its state.

Left out on purpose: collecting and advantages, which are what agents differ in, and PPO's own step, which has more to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn

from textgym_agents.checkpoint import load_learning, save_learning
from textgym_agents.losses import importance_weights
from textgym_agents.minibatch import Passes
from textgym_agents.packing import packs_exactly
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.rollout import Rollout

Cut = Callable[[Tensor], Tensor]
TokenLoss = Callable[[Tensor, Cut, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""``(logprobs (B, W), cut, count) -> loss, figures``: ``cut`` gives a table's (E, T) part for this pass, ``count`` is the
minibatch's agent tokens, to divide by."""


class Learner:
    """A language model and its optimizer.

    Args:
        policy: whose model learns.
        learning_rate: of AdamW, at the start.
        max_grad_norm: the gradient's norm is clipped to it.
        microbatch_tokens: most cells of one pass, padding included.
        modules: whose parameters learn; default: the policy's language model.

    Raises:
        TypeError: the policy is not one with a language model.
        ValueError: it has a separate value model, which nothing would read.
    """

    def __init__(
        self,
        policy: CausalLMPolicy,
        *,
        learning_rate: float,
        max_grad_norm: float = 1.0,
        microbatch_tokens: int = 2048,
        modules: Iterable[nn.Module] | None = None,
    ) -> None:
        if not isinstance(policy, CausalLMPolicy):
            raise TypeError(f"the policy is a {type(policy).__name__}; this agent improves a CausalLMPolicy")
        if modules is None and policy.model.value_lm is not None:
            raise ValueError(
                "this agent learns without values, so that a separate value model would only cost memory and passes; leave out "
                "--value-model separate, or use ppo"
            )
        self.policy = policy
        self.learning_rate = learning_rate
        self.max_grad_norm = max_grad_norm
        learning = [policy.model.lm] if modules is None else list(modules)
        self.parameters = [p for module in learning for p in module.parameters() if p.requires_grad]
        self.passes = Passes("packed" if packs_exactly(policy.model) else "sorted", microbatch_tokens, policy.temperature)
        optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.0, eps=1e-5)
        plugin = GradientAccumulationPlugin(num_steps=1)
        self.accelerator = Accelerator(
            cpu=policy.device.type == "cpu", mixed_precision="no", gradient_accumulation_plugin=plugin
        )
        # Several processes wait for the gradient of every parameter that requires one, and the value head may get none here.
        own = {id(parameter) for parameter in self.parameters}
        others = [p for p in policy.model.parameters() if p.requires_grad and id(p) not in own]
        for parameter in others:
            parameter.requires_grad_(False)
        self.model, self.optimizer = self.accelerator.prepare(policy.model, optimizer)
        for parameter in others:
            parameter.requires_grad_(True)
        self.progress: dict[str, int] = {}
        """Where ``learn`` stands; a resumed one starts there."""

    def anneal(self, share: float) -> None:
        """Set the learning rate to what it is when this ``share`` of the budget is used: it falls linearly to 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * (1 - share)

    def step(self, rollout: Rollout, episodes: Tensor, loss: TokenLoss) -> dict[str, float]:
        """Take one optimizer step on the rows ``episodes``, pass by pass. Returns the figures, summed over the passes.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; names the episodes, and no weight has changed.
        """
        mask = rollout.agent_mask[episodes]
        count = self.accelerator.reduce(mask.sum().float(), "mean")
        parts = self.passes.divide(rollout, episodes)
        figures: dict[str, float] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts, 1):
            width = self.passes.width(rollout, part)
            with nullcontext() if number == len(parts) else self.accelerator.no_sync(self.model):
                logprobs, _, _ = self.passes.run(self.model, rollout, part)
                value, terms = loss(logprobs, lambda table, at=part.texts, w=width: table[at, :w], count)  # type: ignore[misc]
                self.backward(value, rollout.episode_id[part.texts])
            for name, term in {"loss": value, **terms}.items():
                figures[name] = figures.get(name, 0.0) + float(term.detach())
        self.finish(rollout.episode_id[episodes])
        return figures

    def as_evaluated(self, rollout: Rollout, episodes_at_once: int) -> tuple[Tensor, Tensor | None]:
        """Give the log-probs of a fresh collection as ``step`` evaluates them, and how much each token then counts.

        That is what was sampled, unless sampling leaves tokens out (top-k, top-p): ratios would then start below 1, and clip.
        The weights are pi / pi_sampled, at most 1: what the sampled part holds of the whole. None: 1.
        """
        if not self.policy.sampling.truncates:
            return rollout.logprobs, None
        logprobs, _ = self.passes.evaluate(self.policy.model, rollout, episodes_at_once)
        return logprobs, importance_weights(logprobs, rollout.logprobs, rollout.agent_mask, cap=1.0)

    def backward(self, loss: Tensor, episode_ids: Tensor) -> None:
        """Add a loss' gradients."""
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} on episodes {episode_ids.tolist()}; no weight was changed by it"
            )
        self.accelerator.backward(loss)

    def finish(self, episode_ids: Tensor) -> None:
        """Clip what was added up, and step."""
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if norm is not None and not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient's norm is {float(norm)} on episodes {episode_ids.tolist()}; no weight was changed by it"
            )
        self.optimizer.step()

    def save_state(self, folder: str | Path, shuffle: torch.Generator | None = None, reference: Any = None) -> None:
        """Write model, optimizer, generators, ``progress`` and a reference, so that ``load_state`` goes on exactly here."""
        generators, reference = self._state(shuffle, reference)
        save_learning(folder, self.policy.model, self.optimizer, generators, {"progress": self.progress}, reference)

    def load_state(self, folder: str | Path, shuffle: torch.Generator | None = None, reference: Any = None) -> None:
        """Read what ``save_state`` wrote."""
        generators, reference = self._state(shuffle, reference)
        self.progress = load_learning(folder, self.policy.model, self.optimizer, generators, reference)["progress"]

    def _state(self, shuffle: torch.Generator | None, reference: Any) -> tuple[dict[str, torch.Generator], Any]:
        generators = {"policy": self.policy.generator} | ({} if shuffle is None else {"shuffle": shuffle})
        return generators, reference if isinstance(reference, nn.Module) else None  # adapters switched off are no module


def updates_of(budget: int, episodes_per_update: int) -> int:
    """Give the whole updates in a budget of episodes.

    Raises:
        ValueError: there is none.
    """
    if budget < episodes_per_update:
        raise ValueError(f"budget is {budget} episodes, less than one update of {episodes_per_update}")
    return budget // episodes_per_update


def check_one_process(agent: Any, why: str) -> None:
    """Raise ValueError where there are several processes, for an agent that learns in one."""
    if (count := PartialState().num_processes) > 1:
        raise ValueError(
            f"{type(agent).__name__} learns in one process and there are {count}: {why}; start it without accelerate launch or "
            "torchrun, or use ppo, rloo, grpo, reinforce or cloning"
        )


def check_group_size(envs: gym.vector.VectorEnv[Any, Any, Any], group_size: int) -> None:
    """Raise ValueError where an environment's slots are not in groups of this size, which see the same prompts."""
    made = getattr(envs.unwrapped, "group_size", 1)
    if made != group_size:
        raise ValueError(
            f"the environment's group_size is {made} and the agent's {group_size}; make it with "
            f"TextGenVectorEnv(..., group_size={group_size})"
        )
