"""A collection of episodes: the Policy protocol and the Rollout that learners read.

Left out on purpose: playing, which is ``collect``'s, and learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from textgym.ledger import Ledger
from textgym_agents.policy import Step


class Policy(Protocol):
    """Anything that can drive a vector environment's slots."""

    def act(self, obs: Any, slots: Sequence[int] | np.ndarray) -> Step:
        """Choose the next token of each slot; ``obs`` int64 (n, context_length), row i is the text of ``slots[i]``.

        A policy whose ``act`` has a third parameter, ``lengths``, is told the texts' lengths, int64 (n,) on the host.
        """
        ...

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget the texts of ``slots``: their episodes ended."""
        ...


@dataclass(frozen=True, eq=False)
class Rollout:
    """E finished episodes, T the most response tokens among them, L the most tokens of prompt and response.

    Column t is response token t; masked cells hold 0 and are never read.
    """

    ids: Tensor
    """int64 (E, L), prompt then response."""
    prompt_lengths: Tensor
    """int64 (E,)."""
    num_tokens: Tensor
    """int64 (E,), response tokens."""
    agent_mask: Tensor
    """bool (E, T), True where the agent chose the token."""
    token_rewards: Tensor
    """float32 (E, T), as released."""
    streams: Tensor
    """int64 (E, T), -1 where there is no agent token."""
    logprobs: Tensor
    """float32 (E, T), under the distribution that each token was sampled from."""
    values: Tensor
    """float32 (E, T), V before the token."""
    ref_logprobs: Tensor | None
    """float32 (E, T), under the frozen reference; None where there is none."""
    policy_version: Tensor
    """int64 (E, T), the version of the policy that sampled each token."""
    version: int
    """The version of the policy that is about to learn: ``version - policy_version`` is how stale a token is."""
    final_values: Tensor
    """float32 (E,), V of the final state of truncated episodes, else 0."""
    terminated: Tensor
    """bool (E,)."""
    truncated: Tensor
    """bool (E,)."""
    episode_id: Tensor
    """int64 (E,)."""
    group_id: Tensor
    """int64 (E,), episodes of one group share their prompt."""
    is_success: Tensor
    """bool (E,), the task's verdicts."""
    ledger: Ledger
    """Means over the episodes: what was asked for, and what weights and other stages took before the release."""

    def __len__(self) -> int:
        return len(self.ids)
