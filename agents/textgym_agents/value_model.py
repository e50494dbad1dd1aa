"""What a separate value model needs while texts are written: a cache of its own beside the language model's.

Left out on purpose: masks of its own. Both models have the same sliding windows (``support.check_value_model``), so one
mask is right for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from textgym_agents.slots import SlotCache


@dataclass(frozen=True, eq=False)
class PairCache:
    """Two slot caches that are aimed and moved together; called as one ``SlotCache`` is."""

    policy: SlotCache
    """The language model's."""
    value: SlotCache
    """The value model's."""

    def aim(self, rows: Tensor | None, columns: Tensor, width: int, dtype: torch.dtype) -> Any:
        """Set where the next forward pass of both writes, and make the masks of both; see ``SlotCache.aim``."""
        self.value.aim(rows, columns, width, dtype)
        return self.policy.aim(rows, columns, width, dtype)

    def copy_rows(self, source: Tensor, target: Tensor, width: int) -> None:
        """Copy the first ``width`` columns of rows ``source`` to rows ``target`` in both."""
        self.policy.copy_rows(source, target, width)
        self.value.copy_rows(source, target, width)

    def clear(self) -> None:
        """Put 0 everywhere in both."""
        self.policy.clear()
        self.value.clear()
