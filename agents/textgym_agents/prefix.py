"""What texts that enter a cache together have in common, with each other and with what it holds already.

Left out on purpose: a tree of prefixes kept over time. Prompts are shared by slots that run side by side: groups that see the
same prompt, and a system prompt that stands before every one; both are found by looking at the texts at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_SAVED = 64
"""Tokens that sharing must save, else plain prefill is cheaper than finding and copying."""


@dataclass(frozen=True, eq=False)
class Sharing:
    """How n new texts enter the cache with few tokens computed twice. Indices are into the new texts unless said otherwise."""

    leaders: npt.NDArray[np.int64]
    """int64 (u,), one of each set of equal texts: these are computed."""
    leader_of: npt.NDArray[np.int64]
    """int64 (n,), for each text, which of ``leaders`` (an index into them) it equals."""
    donors: npt.NDArray[np.int64]
    """int64 (u,), for each leader the held text whose first tokens it copies."""
    copied: npt.NDArray[np.int64]
    """int64 (u,), how many tokens it copies from there; always less than its length, so that its last state is computed."""
    common: int
    """Tokens that all leaders share and no held text has: computed for the first of them, and copied to the others."""


def share(
    new: npt.NDArray[np.int64],
    new_lengths: npt.NDArray[np.int64],
    held: npt.NDArray[np.int64],
    held_lengths: npt.NDArray[np.int64],
) -> Sharing | None:
    """Find what new texts share; None where it saves too little.

    Args:
        new: int64 (n, L), right-padded with -1: texts of which nothing is in the cache.
        new_lengths: int64 (n,).
        held: int64 (m, L), texts whose first ``held_lengths`` tokens are in the cache.
        held_lengths: int64 (m,).
    """
    total = int(new_lengths.sum())
    if total < LEAST_SAVED:
        return None
    width = int(new_lengths.max())
    new, held = new[:, :width], held[:, :width]
    if not _may_save(new, held):
        return None
    _, leaders, leader_of = np.unique(new, axis=0, return_index=True, return_inverse=True)
    leader_of = leader_of.reshape(-1)
    texts, lengths = new[leaders], new_lengths[leaders]
    donors, copied = np.zeros(len(leaders), dtype=np.int64), np.zeros(len(leaders), dtype=np.int64)
    if len(held):
        for i, text in enumerate(texts):
            same = np.logical_and.accumulate(held == text, axis=1).sum(1)
            usable = np.minimum(np.minimum(same, held_lengths), lengths[i] - 1)
            donors[i], copied[i] = usable.argmax(), usable.max()
    common = int(min(np.logical_and.accumulate(texts == texts[:1], axis=1).all(0).sum(), lengths.min() - 1))
    if copied.min() >= common:  # one donor has it for all, or none has
        common = 0
    computed = int((lengths - np.maximum(copied, common)).sum()) + max(0, common - int(copied[0]))
    return Sharing(leaders, leader_of, donors, copied, common) if total - computed >= LEAST_SAVED else None


def _may_save(new: npt.NDArray[np.int64], held: npt.NDArray[np.int64]) -> bool:
    """Whether sharing may save enough: then some new text has so many tokens in common with another. Cheap to ask."""
    depth = -(-LEAST_SAVED // len(new))
    begins = {text.tobytes() for text in new[:, :depth]}
    return len(begins) < len(new) or not begins.isdisjoint([text.tobytes() for text in held[:, :depth]])
