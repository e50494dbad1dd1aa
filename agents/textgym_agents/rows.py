"""Which row of a KV cache holds which slot's text: plain numbers on the host.

Left out on purpose: the cache. ``SlotRows`` says what to move; the policy moves it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_CLASSES = 2 ** np.arange(5, 24)  # 32, 64, ...: the longest text of each class of lengths
_NONE = np.zeros(0, dtype=np.int64)


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
        self._gaps = 0  # free rows among those in use
        self.cached = np.zeros(num_slots, dtype=np.int64)
        """int64 (N,), tokens of each slot's text that its row holds."""

    def __len__(self) -> int:
        return len(self.slot_of)

    def settled(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Give the rows of ``slots``, int64 (n,), where ``take`` would change nothing; else None."""
        rows = self.row_of[slots]
        # Python's min is quicker than numpy's on so few numbers.
        return rows if self._gaps <= len(self) // 8 and min(rows.tolist()) >= 0 else None

    def free(self, slots: npt.NDArray[np.int64]) -> None:
        """Let the rows of ``slots`` go."""
        rows = self.row_of[slots]
        rows = rows[rows >= 0]
        self.slot_of[rows] = -1
        self._gaps += len(rows)
        self.row_of[slots] = -1
        self.cached[slots] = 0

    def take(
        self, slots: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Give each of ``slots`` a row. Where rows are given, or more than an eighth of those in use are free, close the gaps.

        Rows that are moved anyway are sorted into classes of length, short texts first: attention reads less that way.

        Args:
            slots: int64 (n,).
            lengths: int64 (n,), tokens of their texts.

        Returns:
            Rows to copy from and rows to copy to, int64 (moved,) each: all are read before any is written.
        """
        if self.settled(slots) is not None:
            return _NONE, _NONE
        missing = self.row_of[slots] < 0
        rows = (self.slot_of >= 0).nonzero()[0]
        self._gaps = 0
        held = self.slot_of[rows]
        every, row = np.concatenate([held, slots[missing]]), np.concatenate([rows, np.full(missing.sum(), -1)])
        kind = np.searchsorted(_CLASSES, np.concatenate([self.cached[held], lengths[missing]]))
        region = np.sort(kind)  # the class of length that belongs at each row
        stays = (row >= 0) & (row < len(every))
        stays[stays] = region[row[stays]] == kind[stays]
        taken = np.zeros(len(every), dtype=np.bool_)
        taken[row[stays]] = True
        free = (~taken).nonzero()[0]
        rest = (~stays).nonzero()[0]
        rest = rest[np.argsort(kind[rest], kind="stable")]
        moved = row[rest] >= 0
        self.slot_of = np.append(self.slot_of[: len(every)], np.full(max(0, len(every) - len(self)), -1))
        self.slot_of[free] = every[rest]
        self.row_of[every[rest]] = free
        return row[rest][moved], free[moved]
