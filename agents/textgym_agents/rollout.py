"""A collection of episodes: the Policy protocol, and the Rollout that learners read.

Left out on purpose: playing, which is ``collect``'s, and learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from textgym import Release
from textgym.ledger import Ledger
from textgym_agents.head import Allowed
from textgym_agents.policy import Step


class Policy(Protocol):
    """Anything that can drive a vector environment's slots."""

    def act(self, obs: Any, slots: Sequence[int] | np.ndarray) -> Step:
        """Choose the next token of each slot; ``obs`` int64 (n, context_length), row i is the text of ``slots[i]``.

        A policy whose ``act`` has a parameter ``lengths`` is told the texts' lengths, int64 (n,) on the host; one that has
        ``allowed``, the tokens that a task with action masks allows, bool (n, V). A task with masks needs a policy that asks.
        """
        ...

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget what is cached of ``slots``: their episodes ended, or the policy has learned since."""
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
    allowed: Allowed | None = None
    """The tokens that the task allowed at each response token, (E, T); None: it has no action masks."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Played:
    """A finished episode. Not frozen: its release may come later."""

    order: int
    """Which of all episodes it was, by when they started."""
    prompt_length: int
    """Tokens of its prompt."""
    ids: Tensor
    """int64 (context_length,), prompt then response; 0 beyond."""
    logprobs: Tensor
    """float32 (context_length,), by response token; 0 where the agent wrote none. So is the next."""
    values: Tensor
    """float32 (context_length,)."""
    versions: Tensor
    """int64 (context_length,), the policy's version when each token was written; means nothing where the agent wrote none."""
    final_value: float
    """V of the final state, where it was truncated; else 0."""
    release: Release | None = None
    """None as long as it is due, and for ever where the environment dropped it."""
    mask_numbers: Tensor | None = None
    """int64 (context_length,), which action mask each token was sampled under; None: the task has none."""


def lay_out(finished: Sequence[Played], version: int, masks: Tensor | None = None) -> Rollout:
    """Lay finished episodes out in the order in which they started; those without a release are left out.

    Args:
        finished: of one collection.
        version: see ``Rollout``.
        masks: bool (M, V), the task's action masks; None: it has none.

    Raises:
        ValueError: none has one.
    """
    played = sorted((item for item in finished if item.release is not None), key=lambda item: item.order)
    if not played:
        raise ValueError(f"all {len(finished)} episodes of the collection were dropped: none of them could be rewarded")
    ended = [item.release for item in played if item.release is not None]
    device = played[0].ids.device
    prompt_lengths = np.array([item.prompt_length for item in played])
    count = np.array([release.num_tokens for release in ended])
    width, length = int(count.max()), int((prompt_lengths + count).max())

    def stack(name: str, columns: int) -> Tensor:
        return torch.stack([getattr(item, name) for item in played])[:, :columns]

    def table(name: str, dtype: Any, blank: float = 0) -> Tensor:
        out = np.full((len(ended), width), blank, dtype=dtype)
        for row, release in zip(out, ended, strict=True):
            row[: release.num_tokens] = getattr(release, name)
        return torch.from_numpy(out).to(device)

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(release, name) for release in ended], device=device)

    agent_mask = table("agent_mask", np.bool_)
    return Rollout(
        ids=stack("ids", length),
        prompt_lengths=torch.from_numpy(prompt_lengths).to(device),
        num_tokens=torch.from_numpy(count).to(device),
        agent_mask=agent_mask,
        token_rewards=table("token_rewards", np.float32),
        streams=table("streams", np.int64, -1),
        logprobs=stack("logprobs", width),
        values=stack("values", width),
        ref_logprobs=None,
        policy_version=stack("versions", width) * agent_mask,
        version=version,
        final_values=torch.tensor([item.final_value for item in played], device=device),
        terminated=column("terminated"),
        truncated=column("truncated"),
        episode_id=column("episode_id"),
        group_id=column("group_id"),
        is_success=column("is_success"),
        ledger=Ledger.mean([release.ledger for release in ended]),
        allowed=None if masks is None else Allowed(masks, stack("mask_numbers", width)),
    )
