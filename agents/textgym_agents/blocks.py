"""Attention of a decode pass in blocks of rows: each block is cut to its own longest row.

Left out on purpose: a kernel. One token per row reads all keys and values that its row may hold, so where texts of 10 and 140
tokens stand side by side most of what is read is masked. A block is an ordinary scaled-dot-product attention of a slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

Block = tuple[int, int, int]
"""First row, one past the last, columns that its rows see."""

_NAME = "textgym_blocks"
_LEAST_SAVED = 256  # row-columns that one more block must save to be worth its call
_blocks: ContextVar[Sequence[Block]] = ContextVar("blocks")


def split_rows(lengths: npt.NDArray[np.int64]) -> list[Block]:
    """Cut rows of these lengths (n,) into blocks, so that rows x columns is small; best where long rows stand together."""
    blocks, todo = [], [(0, len(lengths))]
    while todo:
        start, stop = todo.pop()
        part = lengths[start:stop]
        before, after = np.maximum.accumulate(part), np.maximum.accumulate(part[::-1])[::-1]
        count = np.arange(1, len(part))
        cost = before[:-1] * count + after[1:] * (len(part) - count)
        cut = int(cost.argmin()) + 1 if len(cost) else 0
        if cut and len(part) * before[-1] - cost[cut - 1] > _LEAST_SAVED:
            todo += [(start + cut, stop), (start, start + cut)]
        else:
            blocks.append((start, stop, int(before[-1])))
    return blocks


@contextmanager
def attention_in_blocks(lm: PreTrainedModel, blocks: Sequence[Block]) -> Iterator[None]:
    """Let the model's attention run block by block inside; its rows are the batch. Other attention than sdpa is left alone."""
    if len(blocks) == 1 or lm.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(_NAME, _attention)
    token = _blocks.set(blocks)
    lm.config._attn_implementation = _NAME
    try:
        yield
    finally:
        lm.config._attn_implementation = "sdpa"
        _blocks.reset(token)


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend; query (n, heads, 1, d), key and value (n, heads, columns, d), mask (n, 1, 1, columns)."""
    parts = [
        sdpa_attention_forward(
            module, query[a:b], key[a:b, :, :width], value[a:b, :, :width], attention_mask[a:b, ..., :width], **kwargs
        )[0]
        for a, b, width in _blocks.get()
    ]
    return torch.cat(parts), None
