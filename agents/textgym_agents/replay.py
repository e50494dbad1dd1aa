"""A replay buffer of finished episodes, with the rewards that their release gave them.

Left out on purpose: single steps. A step pays 0 until the episode ends, so a buffer of steps would hold rewards that are
wrong until they are relabelled; here an episode enters when it is released, every token with its own reward.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from textgym_agents.rollout import Rollout


@dataclass(frozen=True, eq=False)
class Batch:
    """B episodes, T the most response tokens and L the most tokens among them; padded on the right."""

    ids: Tensor
    """int64 (B, L), prompt then response."""
    prompt_lengths: Tensor
    """int64 (B,)."""
    agent_mask: Tensor
    """bool (B, T)."""
    token_rewards: Tensor
    """float32 (B, T), as released."""
    streams: Tensor
    """int64 (B, T), -1 where there is no agent token."""
    final_values: Tensor
    """float32 (B,), V of the final state of truncated episodes when they were played, else 0."""
    truncated: Tensor
    """bool (B,)."""
    episode_id: Tensor
    """int64 (B,)."""


_BY_EPISODE = ("prompt_lengths", "final_values", "truncated", "episode_id")
_BLANK = {"ids": 0, "agent_mask": False, "token_rewards": 0.0, "streams": -1}


class Replay:
    """Holds the newest ``capacity`` episodes.

    Args:
        capacity: episodes.
        seed: of what is drawn.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self._episodes: deque[dict[str, Tensor]] = deque(maxlen=capacity)
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._episodes)

    def add(self, rollout: Rollout) -> None:
        """Put released episodes in; the oldest make room."""
        for i, (prompt, count) in enumerate(zip(rollout.prompt_lengths.tolist(), rollout.num_tokens.tolist(), strict=True)):
            row = {name: getattr(rollout, name)[i, :count] for name in ("agent_mask", "token_rewards", "streams")}
            row["ids"] = rollout.ids[i, : prompt + count]
            row |= {name: getattr(rollout, name)[i] for name in _BY_EPISODE}
            self._episodes.append(row)

    def sample(self, episodes: int) -> Batch:
        """Draw episodes, with replacement.

        Raises:
            ValueError: the buffer is empty.
        """
        if not self._episodes:
            raise ValueError("the replay buffer is empty; add a collection before drawing from it")
        drawn = torch.randint(len(self._episodes), (episodes,), generator=self._generator).tolist()
        rows = [self._episodes[i] for i in drawn]
        tables = {
            name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=blank)
            for name, blank in _BLANK.items()
        }
        return Batch(**tables, **{name: torch.stack([row[name] for row in rows]) for name in _BY_EPISODE})
