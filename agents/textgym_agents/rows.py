"""Which row of a KV cache holds which slot's text: plain numbers on the host.

Left out on purpose: the cache. ``SlotRows`` says what to move; the policy moves it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class SlotRows:
    """Rows of N slots, kept together at the front, so that a pass over the rows in use computes little else.

    Args:
        num_slots: N, also the most rows.
    """

    def __init__(self, num_slots: int) -> None:
        self.row_of = np.full(num_slots, -1, dtype=np.int64)
        """int64 (N,), the row of each slot, -1: none."""
        self.slot_of = np.zeros(0, dtype=np.int64)
        """int64 (rows in use,), the slot of each row, -1: free."""
        self.cached = np.zeros(num_slots, dtype=np.int64)
        """int64 (N,), tokens of each slot's text that its row holds."""

    def __len__(self) -> int:
        return len(self.slot_of)

    def free(self, slots: npt.NDArray[np.int64]) -> None:
        """Let the rows of ``slots`` go."""
        rows = self.row_of[slots]
        self.slot_of[rows[rows >= 0]] = -1
        self.row_of[slots] = -1
        self.cached[slots] = 0

    def take(self, slots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Give each of ``slots`` a row; close gaps where more than an eighth of the rows in use would stay free.

        Returns:
            Rows to copy from and rows to copy to, int64 (moved,) each, before anything is written.
        """
        missing = slots[self.row_of[slots] < 0]
        need = int((self.slot_of >= 0).sum()) + len(missing)
        gaps = len(self) - need
        nothing = np.zeros(0, dtype=np.int64)
        if len(missing) == 0 and gaps <= len(self) // 8:
            return nothing, nothing
        source = target = nothing
        if gaps > len(self) // 8:
            source = need + np.flatnonzero(self.slot_of[need:] >= 0)
            target = np.flatnonzero(self.slot_of[:need] < 0)[: len(source)]
            self._put(self.slot_of[source], target)
            self.slot_of = self.slot_of[:need].copy()
        elif gaps < 0:
            self.slot_of = np.append(self.slot_of, np.full(-gaps, -1, dtype=np.int64))
        self._put(missing, np.flatnonzero(self.slot_of < 0)[: len(missing)])
        return source, target

    def _put(self, slots: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> None:
        self.slot_of[rows] = slots
        self.row_of[slots] = rows
