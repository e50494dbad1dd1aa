"""Minibatches of a collection: whole episodes, cut to their lengths and run through a model pass by pass.

Left out on purpose: losses, which are the learner's. Nothing here depends on how texts are laid out but time and memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from textgym_agents.head import Allowed
from textgym_agents.packing import How, MicroBatch, micro_batches
from textgym_agents.rollout import Rollout


@dataclass(frozen=True, eq=False)
class Targets:
    """What an update holds a collection's tokens against."""

    advantages: Tensor
    """float32 (E, T)."""
    returns: Tensor
    """float32 (E, T), of the values."""
    weights: Tensor | None
    """float32 (E, T), of tokens that were sampled otherwise than they are evaluated; None: 1."""


@dataclass(frozen=True)
class Passes:
    """How texts go through a model."""

    how: How
    """How they are laid out."""
    max_tokens: int
    """Most cells of one pass, padding included."""
    temperature: float
    """Of the policy that sampled."""

    def divide(self, rollout: Rollout, episodes: Tensor) -> list[MicroBatch]:
        """Divide the rows ``episodes`` of a collection over passes."""
        return micro_batches(episodes, rollout.prompt_lengths + rollout.num_tokens, self.how, self.max_tokens)

    def run(self, model: Any, rollout: Rollout, part: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Run one pass. Returns logprobs, values and entropies, float32 (B, W), W the most response tokens in it."""
        length = int((rollout.prompt_lengths + rollout.num_tokens)[part.texts].max())
        return model(
            rollout.ids[part.texts, :length],
            rollout.prompt_lengths[part.texts],
            rollout.agent_mask[part.texts, : self.width(rollout, part)],
            self.temperature,
            part.layout,
            **self._allowed(rollout, part),
        )

    def _allowed(self, rollout: Rollout, part: MicroBatch) -> dict[str, Allowed]:
        """Give the action masks of a pass, as an argument; none where the task has none."""
        if rollout.allowed is None:
            return {}
        rows, numbers = rollout.allowed
        return {"allowed": Allowed(rows, numbers[part.texts, : self.width(rollout, part)])}

    def width(self, rollout: Rollout, part: MicroBatch) -> int:
        """Give W, the most response tokens in a pass."""
        return int(rollout.num_tokens[part.texts].max())

    @torch.no_grad()
    def evaluate(self, model: Any, rollout: Rollout, episodes_at_once: int) -> tuple[Tensor, Tensor]:
        """Evaluate a whole collection. Returns logprobs and values, float32 (E, T), 0 where there is no agent token."""
        logprobs, values = torch.zeros_like(rollout.logprobs), torch.zeros_like(rollout.values)
        for episodes in torch.arange(len(rollout), device=rollout.ids.device).split(episodes_at_once):
            for part in self.divide(rollout, episodes):
                width = self.width(rollout, part)
                logprobs[part.texts, :width], values[part.texts, :width], _ = self.run(model, rollout, part)
        return logprobs, values

    @torch.no_grad()
    def values(self, model: Any, rollout: Rollout, episodes_at_once: int) -> tuple[Tensor, Tensor]:
        """Evaluate a whole collection's values alone, (E, T), and those of final states, (E,), as ``Rollout`` has them."""
        table = nn.functional.pad(torch.zeros_like(rollout.values), (0, 1))  # a column more: a final state may stand there
        wanted = nn.functional.pad(rollout.agent_mask, (0, 1))
        cut = rollout.truncated.nonzero()[:, 0]
        wanted[cut, rollout.num_tokens[cut]] = True
        for episodes in torch.arange(len(rollout), device=rollout.ids.device).split(episodes_at_once):
            for part in self.divide(rollout, episodes):
                length = int((rollout.prompt_lengths + rollout.num_tokens)[part.texts].max())
                width = self.width(rollout, part) + 1
                ids, mask = rollout.ids[part.texts, :length], wanted[part.texts, :width]
                table[part.texts, :width] = model.state_values(ids, rollout.prompt_lengths[part.texts], mask, part.layout)
        final_values = torch.zeros_like(rollout.final_values)
        final_values[cut] = table[cut, rollout.num_tokens[cut]]
        table[cut, rollout.num_tokens[cut]] = 0
        return table[:, :-1], final_values


def minibatches(episodes: int, size: int, epochs: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Give whole episodes in minibatches, shuffled anew in every epoch. int64 (b,) each, on the CPU.

    Args:
        episodes: E, what this process collected.
        size: episodes of a minibatch, where the process holds ``count`` of them; with fewer or more (it dropped some, or others
            were carried over) minibatches are smaller or larger.
        epochs: passes over the collection.
        count: episodes that every process set out to collect: the number of minibatches follows from it alone, so that
            processes that dropped some take as many steps as the others.
        generator: of the order.

    Raises:
        ValueError: there are fewer episodes than minibatches.
    """
    parts = -(-count // size)
    if episodes < parts:
        raise ValueError(f"{episodes} of {count} episodes are left, fewer than the {parts} minibatches of an epoch")
    for _ in range(epochs):
        yield from torch.randperm(episodes, generator=generator).tensor_split(parts)
