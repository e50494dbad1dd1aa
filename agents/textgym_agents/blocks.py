"""Attention of a decode pass in blocks of rows, each cut to its own longest row; and of new texts beside them, in one pass.

Left out on purpose: a kernel. One token per row reads all keys and values that its row may hold, so where texts of 10 and 140
tokens stand side by side most of what is read is masked. A block is an ordinary scaled-dot-product attention of a slice.
In a ragged pass tokens follow one another in a single row, as all layers but attention like it: first one token for each row
of the cache, then whole new texts, whose prefill thus costs no pass of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from textgym_agents.processor import made_by_amd
from textgym_agents.slots import SlotCache, SlotLayer

Block = tuple[int, int, int]
"""First row, one past the last, columns that its rows see."""

_NAME = "textgym_blocks"
_LEAST_READ = 2**15  # keys of a block that are worth a call that reads them
_LEAST_SAVED = 256  # row-columns that one more block must save to be worth its call
_plan: ContextVar[Sequence[Block] | Ragged | None] = ContextVar("plan", default=None)
_passes: Counter[int] = Counter()  # passes under way by config: several threads may run one model
_lock = Lock()


@dataclass(frozen=True, eq=False)
class Ragged:
    """What the tokens of a ragged pass attend to."""

    cache: SlotCache
    """Holds the rows."""
    blocks: Sequence[Block]
    """Of the rows whose tokens come first."""
    masks: Sequence[Tensor | Mapping[str, Tensor]]
    """Additive, (rows, 1, 1, columns) of each block; one per layer kind where the model has several."""
    texts: Sequence[tuple[int, int]]
    """First token and one past the last of each new text; it sees itself only."""
    places: Tensor
    """int64 (q,), where each token's keys and values go: row x columns + column."""
    first: int = 0
    """The row of the first token."""

    @classmethod
    def cut(
        cls,
        cache: SlotCache,
        blocks: Sequence[Block],
        mask: Tensor | Mapping[str, Tensor],
        places: Tensor,
        texts: Sequence[tuple[int, int]] = (),
        first: int = 0,
    ) -> Ragged:
        """Make a plan from masks (rows, 1, 1, columns) of the rows from ``first`` on, whose blocks are counted from there."""
        if isinstance(mask, Tensor):
            parts: Sequence[Any] = [mask] if len(blocks) == 1 else [mask[a:b, ..., :seen] for a, b, seen in blocks]
        else:
            parts = [{kind: part[a:b, ..., :seen] for kind, part in mask.items()} for a, b, seen in blocks]
        return cls(cache, [(a + first, b + first, seen) for a, b, seen in blocks], parts, texts, places, first)


def split_rows(lengths: npt.NDArray[np.int64]) -> list[Block]:
    """Cut rows of these lengths (n,) into blocks, so that rows x columns is small; best where long rows stand together."""
    if len(lengths) * int(lengths.max()) - int(lengths.sum()) <= _LEAST_SAVED:
        return [(0, len(lengths), int(lengths.max()))]  # no cut can save more than all that is masked
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
    if len(blocks) == 1 or lm.config.get_text_config()._attn_implementation not in ("sdpa", _NAME):
        yield
    else:
        with _attending(lm, blocks):
            yield


@contextmanager
def ragged_attention(lm: PreTrainedModel, plan: Ragged) -> Iterator[None]:
    """Let the model's attention read the cache as the plan says; for a pass over ids (1, q) that ``aim_tokens`` has aimed."""
    with _attending(lm, plan):
        yield


@contextmanager
def _attending(lm: PreTrainedModel, plan: Sequence[Block] | Ragged) -> Iterator[None]:
    """Let this thread's attention follow the plan. Other threads that run the model meanwhile have none, and plain sdpa."""
    config = lm.config.get_text_config()
    token = _plan.set(plan)
    with _lock:
        _passes[id(config)] += 1
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        with _lock:
            _passes[id(config)] -= 1
            if not _passes[id(config)]:
                del _passes[id(config)]
                config._attn_implementation = "sdpa"
        _plan.reset(token)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend as planned; query (n, heads, 1, d), key and value (n, heads, columns, d), mask (n, 1, 1, columns)."""
    plan = _plan.get()
    if plan is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if isinstance(plan, Ragged):
        return _ragged(module, query, key, value, plan, **kwargs), None
    parts = []
    for a, b, width in plan:
        keys, values = key[a:b, :, :width], value[a:b, :, :width]
        _read(keys, values)
        parts.append(sdpa_attention_forward(module, query[a:b], keys, values, attention_mask[a:b, ..., :width], **kwargs)[0])
    return torch.cat(parts), None


def _ragged(module: Any, query: Tensor, key: Tensor, value: Tensor, plan: Ragged, **kwargs: Any) -> Tensor:
    """Attend; query, key and value (1, heads, q, d). Returns (1, q, heads, d)."""
    layer = plan.cache.layers[module.layer_idx]
    assert isinstance(layer, SlotLayer)
    one_each = query.permute(2, 1, 0, 3)  # (q, heads, 1, d)
    parts = []
    for (a, b, width), mask in zip(plan.blocks, plan.masks, strict=True):
        if not isinstance(mask, Tensor):
            mask = mask[module.config.layer_types[module.layer_idx]]
        keys, values = layer.cut(a, b, width)
        _read(keys, values)
        own = one_each[a - plan.first : b - plan.first]
        parts.append(_attend(module, own, keys, values, mask, **kwargs))
    for a, b in plan.texts:
        own = query[:, :, a:b], key[:, :, a:b], value[:, :, a:b]
        parts.append(sdpa_attention_forward(module, own[0], own[1], own[2], None, **kwargs)[0][0])
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


def _read(keys: Tensor, values: Tensor) -> None:
    """Bring keys and values (n, heads, columns, d) into the caches in the order in which they lie, where that pays.

    Attention reads them head by head, 128 bytes of every kilobyte at d = 32. Of 32 rows and 40 columns from outside the
    caches an AMD EPYC reads so in 745 us, and in 526 after it has read them in order; no number changes.
    """
    if keys.device.type == "cpu" and keys.numel() >= least_read():
        keys.sum()
        values.sum()


def least_read() -> int:
    """Give how many keys of a block pay for being read in order first."""
    return _LEAST_READ if made_by_amd() else sys.maxsize


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any) -> Tensor:
    """Attend with one token per row, (n, heads, 1, d). Returns (n, heads, d)."""
    if kwargs.keys() <= {"scaling"} and getattr(module, "num_key_value_groups", 1) == 1:
        # What transformers' function comes to, once it has asked for everything that is not there.
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=kwargs.get("scaling"))
        return out.squeeze(2).contiguous()
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0][:, 0]


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
