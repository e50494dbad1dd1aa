"""A collection of episodes: the Policy protocol, and the Rollout that learners read.

Left out on purpose: playing, which is ``collect``'s, and learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgym import Release
from textgym.ledger import Ledger
from textgym_agents.head import Allowed
from textgym_agents.policy import Step
from textgym_agents.tape import Ended, Tape


class Policy(Protocol):
    """Anything that can drive a vector environment's slots."""

    def act(self, obs: Any, slots: Sequence[int] | np.ndarray) -> Step:
        """Choose the next token of each slot; ``obs`` int64 (n, context_length), row i is the text of ``slots[i]``.

        A policy whose ``act`` has a parameter ``lengths`` is told the texts' lengths, int64 (n,) on the host; one that has
        ``allowed``, the tokens that a task with action masks allows, bool (n, V). A task with masks needs a policy that asks.
        One that has ``ahead`` is told up to where the steps to come are known, and may sample them too: ``Step.following``.
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


def lay_out(
    finished: Sequence[Ended], released: Mapping[int, Release], tape: Tape, version: int, masks: Tensor | None = None
) -> Rollout:
    """Lay finished episodes out in the order in which they started; those without a release are left out.

    Args:
        finished: of one collection.
        released: the releases, by ``episode_id``.
        tape: holds their figures.
        version: see ``Rollout``.
        masks: bool (M, V), the task's action masks; None: it has none.

    Raises:
        ValueError: none has one.
    """
    texts = torch.cat([step.ids for step in finished])
    columns: list[Any] = [np.concatenate(column) for column in zip(*(step[:-1] for step in finished), strict=True)]
    played = Ended(*columns, ids=texts)
    rows = np.argsort(played.order)
    rows = rows[[episode_id in released for episode_id in played.episode_id[rows].tolist()]]
    if len(rows) == 0:
        raise ValueError(f"all {len(played.order)} episodes of the collection were dropped: none of them could be rewarded")
    device = texts.device
    played = Ended(*[column[rows] for column in columns], ids=texts[torch.from_numpy(rows).to(device)])
    ended = [released[episode_id] for episode_id in played.episode_id.tolist()]
    count = np.array([release.num_tokens for release in ended])
    length = int((played.prompt_length + count).max())
    inside = np.arange(int(count.max())) < count[:, None]

    def upload(numbers: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(numbers).to(device)

    def table(name: str, dtype: Any, blank: float = 0) -> Tensor:
        out = np.full(inside.shape, blank, dtype=dtype)
        out[inside] = np.concatenate([getattr(release, name) for release in ended])
        return upload(out)

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(release, name) for release in ended], device=device)

    agent_mask = table("agent_mask", np.bool_)
    logprobs, values, versions, mask_numbers = (
        figures.new_zeros(inside.shape).masked_scatter(agent_mask, figures) for figures in tape.read(played)
    )
    return Rollout(
        ids=played.ids[:, :length].clamp(min=0),
        prompt_lengths=upload(played.prompt_length),
        num_tokens=upload(count),
        agent_mask=agent_mask,
        token_rewards=table("token_rewards", np.float32),
        streams=table("streams", np.int64, -1),
        logprobs=logprobs,
        values=values,
        ref_logprobs=None,
        policy_version=versions,
        version=version,
        final_values=upload(played.final_value),
        terminated=column("terminated"),
        truncated=column("truncated"),
        episode_id=upload(played.episode_id),
        group_id=column("group_id"),
        is_success=column("is_success"),
        ledger=Ledger.mean([release.ledger for release in ended]),
        allowed=None if masks is None else Allowed(masks, mask_numbers),
    )
