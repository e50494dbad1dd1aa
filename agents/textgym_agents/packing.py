"""Texts laid out for training passes: several in one row where the model allows it, else sorted by length.

Left out on purpose: attention kernels for ragged rows. Packed rows are no longer than the longest text among them, positions
restart at 0 in each text, and the attention mask keeps texts apart, so any model that takes positions and masks can be run so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from textgym_agents.masks import Windows, attention_masks
from textgym_agents.support import SplitModel

How = Literal["packed", "sorted", "padded"]
"""How texts are laid out: several in a row; one in a row, with others of about its length; one in a row, as they come."""

_ALIKE = 0.75  # sorted texts stand together while they are at least this long, against the longest of them


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of B texts stand in R rows of C columns."""

    positions: Tensor
    """int64 (R, C), place of the token in its own text."""
    text: Tensor
    """int64 (R, C), which text it belongs to; -1 where there is none."""
    starts: Tensor
    """int64 (B,), where in the flattened rows each text begins; its tokens follow one another."""

    def place(self, ids: Tensor) -> Tensor:
        """Lay out int64 (B, L) as int64 (R, C)."""
        return ids[self.text.clamp(min=0), self.positions]

    def masks(self, windows: Windows, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Make the masks by which no text sees another; see ``attention_masks``."""
        # Inside a text, columns are as far apart as positions are. Empty cells see one another, and nobody reads them.
        columns = torch.arange(self.text.shape[1], device=self.text.device).expand_as(self.text)
        return attention_masks(columns, columns, windows, dtype, self.text[:, :, None] == self.text[:, None, :])


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Texts that go through the model in one pass."""

    texts: Tensor
    """int64 (B,), which rows of the collection."""
    layout: Layout | None
    """How they are packed; None: a row each."""


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Pack texts into rows of ``width`` tokens: longest first, each into the first row with room (first-fit decreasing)."""
    rows: list[list[int]] = []
    room: list[int] = []
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, left in enumerate(room) if left >= lengths[text]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= lengths[text]
    return rows


def lay_out(rows: Sequence[Sequence[int]], lengths: Sequence[int], device: torch.device) -> Layout:
    """Make the layout of texts 0 to B - 1, given which of them stand in each row, in their order."""
    width = max(sum(lengths[text] for text in row) for row in rows)
    begins = [0] * len(lengths)
    for r, row in enumerate(rows):
        place = r * width
        for text in row:
            begins[text] = place
            place += lengths[text]
    counts, starts = torch.tensor(lengths), torch.tensor(begins)
    owner = torch.arange(len(lengths)).repeat_interleave(counts)
    within = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    positions = torch.zeros(len(rows) * width, dtype=torch.int64)
    text = torch.full_like(positions, -1)
    positions[starts[owner] + within] = within
    text[starts[owner] + within] = owner
    return Layout(positions.reshape(-1, width).to(device), text.reshape(-1, width).to(device), starts.to(device))


def micro_batches(texts: Tensor, lengths: Tensor, how: How, max_tokens: int) -> list[MicroBatch]:
    """Divide texts over passes of at most ``max_tokens`` cells each, padding included; every text is in exactly one.

    Args:
        texts: int64 (B,), rows of the collection.
        lengths: int64 (E,), tokens of prompt and response of every text of the collection.
        how: see ``How``.
        max_tokens: of a pass; a single text that is longer has a pass of its own.
    """
    counts: list[int] = lengths[texts].tolist()
    if how == "packed":
        rows = first_fit(counts, max(counts))
        size = max(1, max_tokens // max(counts))
        return [_packed(texts, counts, rows[start : start + size]) for start in range(0, len(rows), size)]
    groups: list[list[int]] = []
    order = sorted(range(len(counts)), key=lambda i: -counts[i]) if how == "sorted" else range(len(counts))
    width = max(counts)
    for text in order:
        fits = bool(groups) and (len(groups[-1]) + 1) * width <= max_tokens
        if how == "sorted" and (not fits or counts[text] < _ALIKE * width):
            fits, width = False, counts[text]
        if not fits:
            groups.append([])
        groups[-1].append(text)
    return [MicroBatch(texts[torch.tensor(group, device=texts.device)], None) for group in groups]


def _packed(texts: Tensor, counts: Sequence[int], rows: Sequence[Sequence[int]]) -> MicroBatch:
    members = [text for row in rows for text in row]
    number = {text: i for i, text in enumerate(members)}
    layout = lay_out([[number[text] for text in row] for row in rows], [counts[text] for text in members], texts.device)
    return MicroBatch(texts[torch.tensor(members, device=texts.device)], layout)


@torch.no_grad()
def packs_exactly(model: SplitModel) -> bool:
    """Compare packed with unpacked states on a few tokens: do these models keep the texts of a row apart?"""
    most = model.context_length
    lengths = [min(n, 5) for n in (most - most // 2, most // 2) if n]  # one row of both is no longer than a text may be
    ids = torch.arange(len(lengths) * max(lengths), device=model.lm.device) % model.vocab_size
    ids = ids.reshape(len(lengths), -1)
    layout = lay_out([range(len(lengths))], lengths, ids.device)
    masks = layout.masks(model.windows, model.lm.dtype)
    for run in (model.policy_hidden, model.value_hidden):
        packed = run(layout.place(ids), layout.positions, masks)[0]
        start = 0
        for row, length in zip(ids, lengths, strict=True):
            expected = run(row[None, :length], torch.arange(length, device=ids.device)[None])[0]
            tolerance = (0.05 if model.lm.dtype.itemsize < 4 else 1e-4) * max(1.0, float(expected.abs().max()))
            if not torch.allclose(packed[start : start + length], expected, atol=tolerance, rtol=0):
                return False
            start += length
    return True
