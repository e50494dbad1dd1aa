"""A KV cache with one row per slot, for an unmodified Hugging Face causal model.

Left out on purpose: paging, eviction, a ring. Every row writes at its own column and has its own position ids, so texts of
different lengths stand side by side without padding between them, and a row is refilled by writing from column 0 again.
What a row's columns hold beyond its length is never read: the attention mask is ``column <= position``. Layers with a sliding
window keep all columns too, and mask those that are out of sight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from textgym_agents.masks import Windows, attention_masks


@dataclass(frozen=True, eq=False)
class Aim:
    """Where a pass writes, and what it reads."""

    places: Tensor
    """int64 (tokens,), row x columns + column of each new token."""
    count: int
    """G, the pass's batch."""
    rows: Tensor | None
    """int64 (G,), which rows are read; None: G rows from ``first`` on, in place."""
    width: int
    """Columns that are read; 0: attention reads the cache itself."""
    first: int = 0
    """The first of the rows that are read in place."""


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values, (rows, columns, heads, head_dim): a token's write is then one contiguous piece."""

    def __init__(self, num_rows: int, num_columns: int) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.num_columns = num_columns
        self.aim = Aim(torch.empty(0, dtype=torch.int64), 0, None, 0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate once the model has shown its shapes: (G, heads, q, head_dim)."""
        for name, states in (("keys", key_states), ("values", value_states)):
            _, heads, _, size = states.shape
            setattr(self, name, states.new_zeros(self.num_rows, self.num_columns, heads, size))
        assert self.keys is not None and self.values is not None
        self._places = self.keys.flatten(0, 1), self.values.flatten(0, 1)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (G, heads, q, head_dim) where this pass was aimed at; return what its rows hold, cut to ``width``."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        aim, held = self.aim, []
        for store, places, states in zip((self.keys, self.values), self._places, (key_states, value_states), strict=True):
            places.index_copy_(0, aim.places, states.transpose(1, 2).flatten(0, 1))
            if aim.width:
                rows = slice(aim.first, aim.first + aim.count) if aim.rows is None else aim.rows
                seen = store[rows, : aim.width]
                held.append(seen.transpose(1, 2))
        return (held[0], held[1]) if aim.width else (key_states, value_states)

    def cut(self, start: int, stop: int, width: int) -> Iterator[Tensor]:
        """View the first ``width`` columns of some rows' keys, and values, (stop - start, heads, width, head_dim)."""
        for store in (self.keys, self.values):
            assert store is not None
            _, columns, heads, size = store.shape
            token = heads * size
            shape = stop - start, heads, width, size
            yield store.as_strided(shape, (columns * token, size, token, 1), start * columns * token)

    def copy_rows(self, source: Tensor, target: Tensor, width: int) -> None:
        """Copy the first ``width`` columns of rows ``source`` to rows ``target``."""
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            for store in (self.keys, self.values):
                if store.device.type == "cpu":
                    # numpy moves what a row holds as the one piece that it is; bytes, because it has no bfloat16
                    rows = store.detach().view(torch.uint8).numpy()[:, :width]
                    rows[target.numpy()] = rows[source.numpy()]
                else:
                    begin = store.flatten(1)[:, : width * store[0, 0].numel()]
                    begin.index_copy_(0, target, begin.index_select(0, source))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention sees, and their offset."""
        return self.aim.width, 0

    def get_seq_length(self) -> int:
        """Not one number here: every row has a length of its own, given by explicit position ids."""
        return 0

    def get_max_length(self) -> int:
        """Most columns of a row."""
        return self.num_columns

    def get_max_cache_shape(self) -> int:
        """The name that transformers 5.0 had for ``get_max_length``."""
        return self.num_columns


class SlotCache(Cache):
    """Keys and values of all layers, one row per slot.

    Args:
        num_layers: layers of the model.
        num_rows: slots.
        num_columns: most tokens of a text. One more column is kept, where rows that sit out a pass may write.
        windows: the model's layer kinds.
    """

    def __init__(self, num_layers: int, num_rows: int, num_columns: int, windows: Windows) -> None:
        super().__init__(layers=[SlotLayer(num_rows, num_columns + 1) for _ in range(num_layers)])
        self.num_columns = num_columns + 1
        self._starts = torch.arange(num_rows) * self.num_columns  # place of each row's first column
        self.windows = windows

    def aim(
        self, rows: Tensor | None, columns: Tensor, width: int, dtype: torch.dtype, first: int = 0
    ) -> Tensor | dict[str, Tensor]:
        """Set where the next forward pass writes, and make its attention masks.

        Args:
            rows: which rows the pass's batch is, int64 (G,); None: G rows from ``first`` on, read in place, not copied.
            columns: int64 (G, q), the column of each new token, which is also its position.
            width: columns that attention needs to see: one past the largest of ``columns``.
            dtype: the model's.
            first: see ``rows``.

        Returns:
            Additive masks (G, 1, q, width): a token sees the columns up to its own; see ``attention_masks``.
        """
        starts = self._starts_of(rows, columns, first)
        self._aim(Aim((starts[:, None] + columns).flatten(), len(columns), rows, width, first))
        return attention_masks(columns, torch.arange(width, device=columns.device), self.windows, dtype)

    def aim_tokens(self, places: Tensor) -> None:
        """Set where the tokens of a ragged pass (1, q) go, int64 (q,), as ``places`` gives it; see ``ragged_attention``."""
        self._aim(Aim(places, len(places), None, 0))

    def places(self, rows: Tensor | None, columns: Tensor, first: int = 0) -> Tensor:
        """Give the place of each of ``columns`` in its row, int64 (q,) all; without ``rows`` in the rows from ``first`` on."""
        return self._starts_of(rows, columns, first) + columns

    def copy_rows(self, source: Tensor, target: Tensor, width: int) -> None:
        """Copy the first ``width`` columns of rows ``source`` to rows ``target``, in every layer; both int64 (n,)."""
        for layer in self.layers:
            assert isinstance(layer, SlotLayer)
            layer.copy_rows(source, target, width)

    def clear(self) -> None:
        """Put 0 everywhere."""
        for layer in self.layers:
            assert isinstance(layer, SlotLayer)
            if layer.is_initialized:
                assert layer.keys is not None and layer.values is not None
                layer.keys.zero_()
                layer.values.zero_()

    def _starts_of(self, rows: Tensor | None, columns: Tensor, first: int) -> Tensor:
        if self._starts.device != columns.device:
            self._starts = self._starts.to(columns.device)
        return self._starts[first : first + len(columns)] if rows is None else self._starts[rows]

    def _aim(self, aim: Aim) -> None:
        for layer in self.layers:
            assert isinstance(layer, SlotLayer)
            layer.aim = aim
