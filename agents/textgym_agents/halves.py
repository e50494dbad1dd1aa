"""A pass over many rows, cut in two that take equally long.

Left out on purpose: running them, which is ``decode``'s, and whether two pay, which ``threads`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEAST_ROWS = 16
"""With fewer rows each half waits for the weights as long as the whole does."""

_PRICE = 64  # of a row, in columns that its attention reads


class Half(NamedTuple):
    """A part of the rows, and of the new texts beside them."""

    first: int
    last: int
    """Rows ``first`` to ``last - 1``."""
    begin: int
    end: int
    """Texts ``begin`` to ``end - 1``."""


def whole(rows: int, texts: int) -> list[Half]:
    """Give all in one."""
    return [Half(0, rows, 0, texts)]


def halves(lengths: npt.NDArray[np.int64], counts: Sequence[int] = ()) -> list[Half]:
    """Cut rows of these lengths (n,), at least ``LEAST_ROWS`` of them, and new texts of ``counts`` tokens."""
    n, least = len(lengths), LEAST_ROWS // 4
    price, tokens = np.cumsum(lengths + _PRICE), np.cumsum(counts)
    cut = min(max(int(price.searchsorted(price[-1] / 2)) + 1, least), n - least)
    middle = int(tokens.searchsorted(tokens[-1] / 2)) + 1 if len(counts) else 0
    return [Half(0, cut, 0, middle), Half(cut, n, middle, len(counts))]
