"""What was sampled, a row per step: the tape that a collection's figures are read from once its episodes have ended.

Left out on purpose: episodes. A running episode writes one token in every step, so its figures are a piece of the tape from
the step in which it began to the one in which it ended; nothing is copied per episode, and little per step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgym_agents.policy import Following, Step


class Ended(NamedTuple):
    """Episodes that ended in one step, n of them; or of a whole collection, E."""

    order: npt.NDArray[np.int64]
    """(n,), which of all episodes each was, by when they started."""
    episode_id: npt.NDArray[np.int64]
    """(n,)."""
    slot: npt.NDArray[np.int64]
    """(n,)."""
    begin: npt.NDArray[np.int64]
    """(n,), the tape's row of its first token of the agent."""
    end: npt.NDArray[np.int64]
    """(n,), one past that of its last."""
    prompt_length: npt.NDArray[np.int64]
    """(n,), tokens of its prompt."""
    final_value: npt.NDArray[np.float32]
    """(n,), V of the final state, where it was truncated; else 0."""
    ids: Tensor
    """int64 (n, context_length), prompt then response; -1 beyond."""


class Figures(NamedTuple):
    """Of the agent's tokens of some episodes, one episode after another, K tokens in all."""

    logprobs: Tensor
    """float32 (K,)."""
    values: Tensor
    """float32 (K,)."""
    versions: Tensor
    """int64 (K,), the policy's version when each was written."""
    mask_numbers: Tensor
    """int64 (K,), which action mask each was sampled under; 0, all tokens, where the task has none."""


class Tape:
    """The figures of every step since the oldest running episode began.

    Args:
        num_envs: N.
        device: of the figures; which slot stands where is on the host.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.device = device
        self._begun = np.zeros(num_envs, dtype=np.int64)
        self._logprobs: list[Tensor] = []
        self._values: list[Tensor] = []
        self._slots: list[npt.NDArray[np.int64]] = []
        self._versions: list[int] = []
        self._mask_numbers: list[npt.NDArray[np.int64]] = []

    def __len__(self) -> int:
        return len(self._slots)

    def begin(self, slots: npt.NDArray[np.int64]) -> None:
        """Note that new episodes begin in ``slots``."""
        self._begun[slots] = len(self)

    def begun(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give the row of the first token of the episodes in ``slots``."""
        return self._begun[slots]

    def write(
        self,
        slots: npt.NDArray[np.int64],
        step: Step | Following,
        version: int,
        mask_numbers: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Note what version ``version`` of the policy sampled in all ``slots`` (n,) with a running episode.

        ``slots``, ``mask_numbers`` (n,) and the step's tensors are kept, and must not change any more.
        """
        self._logprobs.append(step.logprobs)
        self._values.append(step.values)
        self._slots.append(slots)
        self._versions.append(version)
        if mask_numbers is not None:
            self._mask_numbers.append(mask_numbers)

    def read(self, ended: Ended) -> Figures:
        """Read the figures of episodes that ended."""
        sizes, slots = [len(slots) for slots in self._slots], np.concatenate(self._slots)
        place = np.zeros((len(self), len(self._begun)), dtype=np.int64)  # where each slot's figures of a step stand among all
        place[np.repeat(np.arange(len(self)), sizes), slots] = np.arange(len(slots))
        counts = ended.end - ended.begin
        rows = np.arange(counts.sum()) + np.repeat(ended.end - np.cumsum(counts), counts)
        at = place[rows, np.repeat(ended.slot, counts)]
        logprobs, values = (
            torch.cat(figures).detach().to(self.device, torch.float32)[self._upload(at)]
            for figures in (self._logprobs, self._values)
        )
        numbers = np.concatenate(self._mask_numbers)[at] if self._mask_numbers else np.zeros_like(at)
        return Figures(logprobs, values, self._upload(np.array(self._versions)[rows]), self._upload(numbers))

    def forget(self, running: npt.NDArray[np.int64]) -> None:
        """Drop the rows before the first token of the episodes that are running in these slots; all, where none is."""
        first = int(self._begun[running].min()) if len(running) else len(self)
        for table in (self._logprobs, self._values, self._slots, self._versions, self._mask_numbers):
            del table[:first]
        self._begun -= first

    def _upload(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)
