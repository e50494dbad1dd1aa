"""Passes of a language model over the rows of its slot cache, and the sampling that ends each of them.

Left out on purpose: slots and texts, which are the policy's. On CUDA the pass that adds one token per row runs as a CUDA graph:
its shapes are rounded up to a few sizes, so that a handful of graphs serve a whole run, and nothing waits for the device.
On a CPU it is recorded once there were ``_RECORD_AFTER`` of them, see ``recording``: a count, so no clock decides what runs.
Where it pays, two halves of the rows run side by side, see ``threads``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from textgym_agents.blocks import (
    Ragged,
    attention_in_blocks,
    ragged_attention,
    split_rows,
)
from textgym_agents.halves import LEAST_ROWS, Half, halves, whole
from textgym_agents.head import is_plain
from textgym_agents.masks import attention_masks
from textgym_agents.model import ActorCritic
from textgym_agents.products import Products, best_layout
from textgym_agents.recording import Recording
from textgym_agents.sampling import Sampling, sample
from textgym_agents.slots import SlotCache
from textgym_agents.support import head_of
from textgym_agents.threads import halves_pay, one_thread, side_by_side, small_pass

_ROWS, _COLUMNS = 8, 64  # static shapes: rows and columns are rounded up to multiples of these
_RECORD_AFTER = 500  # passes: recording costs what 100 (4 x 256) to 450 (2 x 64) recorded ones save, and many a run is shorter
_LARGEST_HEAD = 2**21  # weights of a head that each half reads for itself
_LARGEST = 2**26  # weights of a model that is recorded, on a copy; in larger ones Python's share of a pass is small


class Sampled(NamedTuple):
    """What was sampled, one token per text."""

    tokens: Tensor
    """int64 (n,)."""
    logprobs: Tensor
    """float32 (n,)."""
    values: Tensor
    """float32 (n,); zeros where values come from a second model."""


class Decoder:
    """A language model over a cache with one row per slot.

    Args:
        model: the language model and its value head.
        num_rows: most rows.
        sampling: from which distribution.
        static: round shapes up; default: on CUDA, where it makes CUDA graphs possible.
    """

    def __init__(self, model: ActorCritic, num_rows: int, sampling: Sampling, static: bool | None = None) -> None:
        self.model = model
        self.sampling = sampling
        self.cache = model.slot_cache(num_rows)
        self.num_rows = num_rows
        self.spare = model.context_length  # a column that nobody reads: rows that sit out write there
        self.device, self.dtype = model.lm.device, model.lm.dtype  # properties that search the model each time
        self._on_host = self.device.type == "cpu"
        self.static = self.device.type == "cuda" if static is None else static
        layout = best_layout() if self._on_host and not self.static else None
        self._products = None if layout is None else Products(layout)
        self._recordable = self._may_be_recorded()
        self._recording: Recording | None = None
        self._passes = 0  # of one token per row, without a recording
        self.mixes = self._mixes_exactly()
        """Whether new texts can be run beside the rows that go on, see ``mixed``."""
        self._graphs: dict[tuple[int, int, bool], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Sampled]] = {}

    def record_soon(self) -> None:
        """Record at the next pass of one token per row, not only after 500 of them."""
        self._passes = max(self._passes, _RECORD_AFTER - 1)

    def begin(self) -> None:
        """Look whether the model's weights have changed; to be called before a pass when nothing of them is cached."""
        if self._products is not None:
            self._products.forget_changed()

    def rows_for(self, in_use: int) -> int:
        """Give how many rows the pass over ``in_use`` rows computes."""
        return min(self.num_rows, -(-in_use // _ROWS) * _ROWS) if self.static else in_use

    def one_each(
        self,
        ids: Tensor,
        columns: Tensor,
        lengths: npt.NDArray[np.int64],
        rows: Tensor,
        uniforms: Tensor | Callable[[], Tensor],
        allowed: Tensor | None = None,
        *,
        follows: bool = False,
    ) -> Sampled:
        """Add one token to each of the first n rows, and sample the next of those that did not sit out.

        Args:
            ids: int64 (n,), n as ``rows_for`` gives it.
            columns: int64 (n,), where each goes; ``spare`` for rows that sit out.
            lengths: int64 (n,) on the host, tokens of each row with the new one; 0 for rows that sit out.
            rows: int64 (k,), the rows to sample for, in the order in which they are given back.
            uniforms: float32 (k,), a random number for each of them; or, where shapes are not ``static``, what gives them,
                called once while a half of the pass may still run: it may change ``columns`` and ``lengths``, not ``ids``.
            allowed: bool (k, V), the tokens that each may be; None: all.
            follows: whether nobody can have changed the model since the last pass, so that it need not be looked at again.
        """
        if not self.static:
            given: list[Tensor] = [] if callable(uniforms) else [uniforms]
            meanwhile = (lambda: given.append(uniforms())) if callable(uniforms) else None
            states = self._one_token(ids, columns, lengths, follows, meanwhile)
            return self.sample(states.index_select(0, rows), given[0], allowed)
        assert isinstance(uniforms, Tensor)
        width = min(self.model.context_length, -(-max(lengths.tolist()) // _COLUMNS) * _COLUMNS)
        if ids.device.type != "cuda":
            return self.sample(self._one_each(ids, columns, width)[rows], uniforms, allowed)
        key = (len(ids), width, allowed is None)
        by_row = uniforms.new_zeros(len(ids)).index_copy_(0, rows, uniforms)
        given = [ids, columns, by_row]
        if allowed is not None:
            given.append(allowed.new_ones(len(ids), allowed.shape[1]).index_copy_(0, rows, allowed))
        if key not in self._graphs:
            self._graphs[key] = self._capture(given, width)
        graph, inputs, outputs = self._graphs[key]
        for place, value in zip(inputs, given, strict=True):
            place.copy_(value)
        graph.replay()
        return Sampled(*(output[rows] for output in outputs))  # copies: the next replay writes over them

    def several(self, rows: Tensor, ids: Tensor, first: Tensor, count: Tensor, width: int) -> Tensor:
        """Add several tokens to each of some rows.

        Args:
            rows: int64 (g,).
            ids: int64 (g, q), row i's new tokens are its first ``count[i]``.
            first: int64 (g,), the column of each row's first new token.
            count: int64 (g,), from 1 to q.
            width: one past the largest column.

        Returns:
            States of each row's last new token, as ``ActorCritic.policy_hidden`` gives them, (g, hidden).
        """
        columns = first[:, None] + torch.arange(ids.shape[1], device=ids.device)
        outside = columns >= (first + count)[:, None]
        positions = columns.clamp(max=self.model.context_length - 1)
        mask = self.cache.aim(rows, columns.masked_fill(outside, self.spare), width, self.dtype)
        with self._small(ids.numel()), self._as_products():
            hidden = self.model.policy_hidden(ids.masked_fill(outside, 0), positions, mask, self.cache)
        return hidden[torch.arange(len(ids), device=ids.device), count - 1]

    def mixed(
        self, ids: Tensor, columns: Tensor, lengths: npt.NDArray[np.int64], texts: Tensor, rows: Tensor, counts: Sequence[int]
    ) -> Tensor:
        """Add one token to each of the first n rows, and new texts to empty ones, in one pass; where ``mixes`` says so.

        Args:
            ids: int64 (n,), as for ``one_each``.
            columns: int64 (n,), as there; the rows of the new texts sit out.
            lengths: int64 (n,), as there.
            texts: int64 (p,), the new texts' tokens, one after another.
            rows: int64 (p,), the row of each.
            counts: tokens of each text.

        Returns:
            States (n + p, hidden) of the rows' tokens and the texts'.
        """
        ends = [0, *accumulate(counts)]
        positions = columns.clamp(max=self.model.context_length - 1)
        within = torch.cat([torch.arange(count) for count in counts])
        passes, parts = [], self._halves(lengths, counts)
        for first, last, begin, end in parts:
            at, of = slice(first, last), slice(ends[begin], ends[end])
            places = torch.cat([self.cache.places(None, columns[at], first), self.cache.places(rows[of], within[of])])
            starts = [last - first + stop - of.start for stop in ends[begin : end + 1]]
            plan = self._plan(columns[at], lengths[at], places, first, list(pairwise(starts)))
            given, seen = torch.cat([ids[at], texts[of]]), torch.cat([positions[at], within[of]])
            passes.append((given[None], seen[None], plan))
        recording = self._usable()
        run = [partial(recording or self._ragged, *each) for each in passes]
        states = self._run(run, len(ids) + len(texts), recorded=recording is not None)
        if len(states) == 1:
            return states[0][0]
        cuts = [part.last - part.first for part in parts]
        kinds = zip(*((part[0, :cut], part[0, cut:]) for part, cut in zip(states, cuts, strict=True)), strict=True)
        return torch.cat([part for kind in kinds for part in kind])

    @torch.no_grad()
    def _mixes_exactly(self) -> bool:
        """Compare a small ragged pass with plain ones; only attention that reads whole rows on a CPU is run so at all."""
        plain = isinstance(self.cache, SlotCache) and not any(self.model.windows.values()) and not self.static
        if not plain or self.device.type != "cpu" or self.model.lm.config._attn_implementation != "sdpa" or self.num_rows < 2:
            return False
        length = min(3, self.model.context_length)
        if length < 2:
            return False
        ids = torch.arange(2 * length).reshape(2, length) % self.model.vocab_size
        zero = torch.zeros(1, dtype=torch.int64)
        try:
            self.several(zero, ids[:1, : length - 1], zero, zero + length - 1, length - 1)
            columns = torch.tensor([length - 1, self.spare])
            states = self.mixed(ids[:, -1], columns, np.array([length, 0]), ids[1], zero.new_ones(length), [length])
        except (TypeError, AttributeError, LookupError, RuntimeError, ValueError):
            return False
        expected = self.model.policy_hidden(ids, torch.arange(length).expand_as(ids))[:, -1]
        tolerance = (0.05 if self.dtype.itemsize < 4 else 1e-4) * max(1.0, float(expected.abs().max()))
        return torch.allclose(states[[0, -1]], expected, atol=tolerance, rtol=0)

    def sample(self, states: Tensor, uniforms: Tensor, allowed: Tensor | None = None) -> Sampled:
        """Sample one token from each state (n, hidden), with a random number (n,) each, among ``allowed``, bool (n, V)."""
        n, head = len(states), head_of(self.model.lm)
        plain = is_plain(head)  # else a hook may hold what the head gave
        halved = plain and head.weight.numel() <= _LARGEST_HEAD and self._pays(n, n)
        with one_thread() if halved else self._small(n):
            if halved:
                cuts = slice(n // 2), slice(n // 2, n)
                draws = [(states[at], uniforms[at], None if allowed is None else allowed[at]) for at in cuts]
                drawn = side_by_side(*(partial(self._draw, head, *draw) for draw in draws))
                tokens, logprobs = map(torch.cat, zip(*drawn, strict=True))
            else:
                tokens, logprobs = self._draw(head if plain else None, states, uniforms, allowed)
            # A value model of its own reads whole texts once they are there: beside every token it would cost a second pass.
            values = self.model.values(states) if self.model.value_lm is None else torch.zeros_like(logprobs)
        return Sampled(tokens, logprobs, values)

    def _draw(self, head: nn.Linear | None, states: Tensor, uniforms: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Draw tokens, with their log-probs; ``head`` where it is plain."""
        if head is not None and self._products is not None:
            # Directly: a mode that asks of every operation costs 90 us between two passes.
            logits = self.model.logits(states, partial(self._products.linear, weight=head.weight, bias=head.bias))
        else:
            logits = self.model.logits(states)
        return sample(logits, uniforms, self.sampling, allowed, overwrite=head is not None)

    def _multiplications(self, tokens: int) -> int:
        """Count those of a feed-forward layer's product."""
        return tokens * 4 * self.model.policy_size**2

    def _small(self, tokens: int) -> AbstractContextManager[None]:
        return small_pass(self._multiplications(tokens)) if self._on_host else nullcontext()

    def _pays(self, rows: int, tokens: int) -> bool:
        """Whether to halve so many rows; the same whether passes are recorded or not, as it may change a number's last bit."""
        plain = self._recordable and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        return plain and rows >= LEAST_ROWS and halves_pay(self._multiplications(tokens))

    def _halves(self, lengths: npt.NDArray[np.int64], counts: Sequence[int] = ()) -> list[Half]:
        n = len(lengths)
        return halves(lengths, counts) if self._pays(n, n + sum(counts)) else whole(n, len(counts))

    def _run(
        self,
        parts: Sequence[Callable[[], Tensor]],
        tokens: int,
        *,
        recorded: bool,
        meanwhile: Callable[[], object] | None = None,
    ) -> Sequence[Tensor]:
        """Run the halves of a pass: recorded ones at once, plain ones one after another, as they share the cache's aim.

        ``meanwhile`` is called once, by the thread that has run its half, while another may still run.
        """
        if recorded and len(parts) == 2:
            return side_by_side(partial(_and_then, parts[0], meanwhile), parts[1])
        with self._small(tokens) if len(parts) == 1 else one_thread():
            *before, last = parts
            return [*(part() for part in before), _and_then(last, meanwhile)]

    def _as_products(self) -> AbstractContextManager[Any]:
        return self._products or nullcontext()

    def _one_token(
        self,
        ids: Tensor,
        columns: Tensor,
        lengths: npt.NDArray[np.int64],
        follows: bool = False,
        meanwhile: Callable[[], object] | None = None,
    ) -> Tensor:
        """Add one token to each row, from the recording where there is one; ``meanwhile``: see ``_run``."""
        parts = self._halves(lengths)
        recording = self._usable(follows)
        if recording is not None:
            return self._replay(recording, parts, ids, columns, lengths, meanwhile)
        self._passes += 1
        recording, replayed = None, None
        if self._passes == _RECORD_AFTER and self._recordable and not torch.is_grad_enabled():
            try:
                recording = Recording(self.model.lm.base_model, self.model.windows, self._products)
                replayed = self._replay(recording, parts, ids, columns, lengths)
            except Exception:  # whatever cannot be recorded runs as it did
                recording = None
        # After the recorded pass, whose keys and values it writes over.
        plain = [partial(self._in_blocks, ids, columns, lengths, part) for part in parts]
        states = torch.cat(list(self._run(plain, len(ids), recorded=False, meanwhile=meanwhile)))
        # Bit for bit: which tokens a run samples does not hang on when its passes were recorded.
        if replayed is not None and torch.equal(replayed, states):
            self._recording = recording
        return states

    def _replay(
        self,
        recording: Recording,
        parts: Sequence[Half],
        ids: Tensor,
        columns: Tensor,
        lengths: npt.NDArray[np.int64],
        meanwhile: Callable[[], object] | None = None,
    ) -> Tensor:
        positions = columns.clamp(max=self.model.context_length - 1)
        assert isinstance(self.cache, SlotCache)
        passes = []
        for first, last, _, _ in parts:
            at = slice(first, last)
            plan = self._plan(columns[at], lengths[at], self.cache.places(None, columns[at], first), first)
            passes.append(partial(recording, ids[None, at], positions[None, at], plan))
        states = self._run(passes, len(ids), recorded=True, meanwhile=meanwhile)
        return states[0][0] if len(states) == 1 else torch.cat(list(states), 1)[0]

    def _plan(
        self,
        columns: Tensor,
        lengths: npt.NDArray[np.int64],
        places: Tensor,
        first: int,
        texts: Sequence[tuple[int, int]] = (),
    ) -> Ragged:
        """Plan a pass over rows from ``first`` on and new texts beside them."""
        assert isinstance(self.cache, SlotCache)
        width = max(1, *lengths.tolist())
        mask = attention_masks(columns[:, None], torch.arange(width), self.model.windows, self.dtype)
        blocks = split_rows(lengths) if lengths.any() else [(0, len(lengths), width)]  # all of them may sit out
        return Ragged.cut(self.cache, blocks, mask, places, texts, first)

    def _ragged(self, ids: Tensor, positions: Tensor, plan: Ragged) -> Tensor:
        """Run tokens (1, q) as planned, without a recording. Returns their states (1, q, hidden)."""
        plan.cache.aim_tokens(plan.places)
        unread = torch.zeros(1, 1, 1, 1, dtype=self.dtype)  # a mask with four dimensions is taken as it is
        with self._as_products(), ragged_attention(self.model.lm, plan):
            return self.model.policy_hidden(ids, positions, unread, plan.cache)

    def _may_be_recorded(self) -> bool:
        """Whether passes may be recorded: of a small model on a CPU, with attention in blocks."""
        plain = isinstance(self.cache, SlotCache) and self._on_host and not self.static
        small = sum(weights.numel() for weights in self.model.lm.base_model.parameters()) <= _LARGEST
        return plain and small and self.model.lm.config.get_text_config()._attn_implementation == "sdpa"

    def _usable(self, follows: bool = False) -> Recording | None:
        """Give the recording; forget one that the model has outgrown, to make another later."""
        if self._recording is not None and not follows and not self._recording.fits():
            self._recording, self._passes = None, 0
        return None if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") else self._recording

    def _in_blocks(self, ids: Tensor, columns: Tensor, lengths: npt.NDArray[np.int64], half: Half) -> Tensor:
        """Add one token to each row of a half, without a recording."""
        at = slice(half.first, half.last)
        with attention_in_blocks(self.model.lm, split_rows(lengths[at])):
            return self._one_each(ids[at], columns[at], max(1, *lengths[at].tolist()), half.first)

    def _one_each(self, ids: Tensor, columns: Tensor, width: int, first: int = 0) -> Tensor:
        """Add one token to each of the rows from ``first`` on."""
        mask = self.cache.aim(None, columns[:, None], width, self.dtype, first)
        positions = columns.clamp(max=self.model.context_length - 1)[:, None]
        with self._as_products():
            return self.model.policy_hidden(ids[:, None], positions, mask, self.cache)[:, 0]

    def _capture(self, given: Sequence[Tensor], width: int) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Sampled]:
        """Record the pass of these shapes. Rows write the same keys and values each time it runs, so warming up is harmless."""
        ids, columns, *draws = inputs = tuple(tensor.clone() for tensor in given)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.sample(self._one_each(ids, columns, width), *draws)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.sample(self._one_each(ids, columns, width), *draws)
        return graph, inputs, outputs


def _and_then(run: Callable[[], Tensor], last: Callable[[], object] | None) -> Tensor:
    """Run a half of a pass, then what can be done while the other still runs."""
    states = run()
    if last is not None:
        last()
    return states
