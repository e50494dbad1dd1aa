"""A pass of one token for each of some rows of the cache, as numbers on the host.

Left out on purpose: the pass, which is ``decode``'s, and texts, which are the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch


class Plan:
    """One token for each of n rows, over all rows in use; those that sit out run token 0 into a column that nobody reads.

    Args:
        rows: int64 (n,).
        count: rows in use.
        spare: the column that nobody reads.
    """

    def __init__(self, rows: npt.NDArray[np.int64], count: int, spare: int) -> None:
        self.rows = rows
        self.spare = spare
        numbers = np.zeros((3, count), dtype=np.int64)
        self.ids, self.columns, self.lengths = numbers
        self._ends = numbers[1:]
        self._further = np.zeros(count, dtype=np.int64)
        self._further[rows] = 1
        """int64 (rows in use,) each: tokens of each row with the new one (0: it sits out), that token, and its column."""
        self.columns.fill(spare)
        self.tensors = torch.from_numpy(self.ids), torch.from_numpy(self.columns)
        """Ids and columns, in the arrays' own memory."""
        self.at = torch.from_numpy(rows)
        """int64 (n,), the rows."""

    def put(self, ids: npt.ArrayLike, columns: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        """Say which token each of the rows runs, into which column, and how long its text is then; (n,) each."""
        self.ids[self.rows], self.columns[self.rows], self.lengths[self.rows] = ids, columns, lengths

    def say(self, ids: npt.ArrayLike) -> None:
        """Say which token each of the rows runs, (n,)."""
        self.ids[self.rows] = ids

    def go_on(self) -> None:
        """Let each of the rows run one column further, in a text that is one longer."""
        self._ends += self._further

    def leave(self, gone: Sequence[int], stay: Sequence[int]) -> None:
        """Let the rows ``gone`` sit out from now on; indices into the rows that were in until now, as ``stay`` are."""
        rows = self.rows[gone]
        self.ids[rows], self.columns[rows], self.lengths[rows], self._further[rows] = 0, self.spare, 0, 0
        self.rows = self.rows[stay]
        self.at = torch.from_numpy(self.rows)
