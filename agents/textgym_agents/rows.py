"""Which row of a KV cache holds which slot's text: plain numbers on the host.

Left out on purpose: the cache. ``SlotRows`` says what to move; the policy moves it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SMALLEST = 5  # classes of lengths: texts of up to 2**5 tokens, of up to 2**6, ...
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
        # Python's lists: so few numbers, and after a pass of the model each of numpy's functions is slow at first
        slot_of, row_of, cached = self.slot_of.tolist(), self.row_of.tolist(), self.cached.tolist()
        self._gaps = 0
        rows = [row for row, slot in enumerate(slot_of) if slot >= 0]
        every = [slot_of[row] for row in rows]
        kind = [_class(cached[slot]) for slot in every]
        for slot, length in zip(slots.tolist(), lengths.tolist(), strict=True):
            if row_of[slot] < 0:
                rows.append(-1)
                every.append(slot)
                kind.append(_class(length))
        region = sorted(kind)  # the class of length that belongs at each row
        stays = [0 <= row < len(every) and region[row] == own for row, own in zip(rows, kind, strict=True)]
        taken = {row for row, stay in zip(rows, stays, strict=True) if stay}
        rest = sorted((i for i, stay in enumerate(stays) if not stay), key=kind.__getitem__)
        free = [row for row in range(len(every)) if row not in taken]
        slot_of = slot_of[: len(every)] + [-1] * (len(every) - len(slot_of))
        for i, row in zip(rest, free, strict=True):
            slot_of[row] = every[i]
            self.row_of[every[i]] = row
        self.slot_of = np.array(slot_of, dtype=np.int64)
        moves = [(rows[i], row) for i, row in zip(rest, free, strict=True) if rows[i] >= 0]
        source, target = np.array(moves, dtype=np.int64).reshape(-1, 2).T
        return source, target


def _class(length: int) -> int:
    return max(0, (length - 1).bit_length() - _SMALLEST)
