"""Parts of a finished text as texts of their own: what is scored to learn what a part is worth.

Left out on purpose: tokenizers. An excerpt's text is the characters that its tokens hold in the whole text, which is what a
score of it should read, and tokens that share a character are never torn apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, read_only
from textgym.parts import Part

Spans: TypeAlias = Callable[[Episode], Sequence[Part]]


def excerpt(episode: Episode, keep: npt.NDArray[np.bool_]) -> Episode:
    """Give the text of some of the tokens.

    Args:
        episode: the whole one.
        keep: bool (T,), which tokens stay; of tokens that share a character, all or none.

    Returns:
        An episode of those tokens. It ended as the whole one did where that one's last token stays, else ``ended_by`` is None.
    """
    edges = np.zeros(len(episode.text) + 1, dtype=np.int64)
    np.add.at(edges, episode.offsets[~keep, 0], 1)
    np.add.at(edges, episode.offsets[~keep, 1], -1)
    stays = edges[:-1].cumsum() == 0
    moved = np.concatenate([[0], stays.cumsum()])
    return Episode(
        prompt=episode.prompt,
        ids=read_only(episode.ids[keep]),
        text="".join(character for character, kept in zip(episode.text, stays.tolist(), strict=True) if kept),
        offsets=read_only(moved[episode.offsets[keep]]),
        agent_mask=read_only(episode.agent_mask[keep]),
        turns=read_only(episode.turns[keep]),
        ended_by=episode.ended_by if keep[-1] else None,
        episode_id=episode.episode_id,
    )


def prefix(episode: Episode, last: int) -> Episode:
    """Give the text as it stood after token ``last``."""
    return excerpt(episode, np.arange(len(episode.ids)) <= last)


def units(episode: Episode, spans: Spans | None = None) -> list[npt.NDArray[np.int64]]:
    """Find the agent's tokens of each part that is judged by itself.

    Args:
        episode: a finished text.
        spans: ``(episode) -> parts``; None: each agent token is a part, tokens that share a character together.

    Returns:
        int64 arrays of token indices, in the order of the text. A token belongs to the part that holds its last character, and
        tokens that share a character all to the part that holds the last character of them together. Tokens without
        characters, but for those in the midst of one, and tokens in no part, are in none. Parts without a token of their own
        are left out, as a turn without characters (``textgym.parts.turns``).

    Raises:
        ValueError: parts overlap, or are not within the text.
    """
    tokens = np.flatnonzero(episode.agent_mask)
    groups = _indivisible(episode)
    if spans is None:
        return np.split(tokens, np.flatnonzero(np.diff(groups[tokens])) + 1) if len(tokens) else []
    owner = np.full(len(episode.text) + 1, -1, dtype=np.int64)  # of each character; the last entry is of those without one
    parts = sorted(spans(episode))
    for number, (start, end) in enumerate(parts):
        if not 0 <= start <= end <= len(episode.text) or (owner[start:end] >= 0).any():
            raise ValueError(
                f"the spans of episode {episode.episode_id} are {[tuple(part) for part in parts]}; they are ranges of its "
                f"{len(episode.text)} characters that do not overlap (for spans inside spans there are groups)"
            )
        owner[start:end] = number
    wide = episode.offsets[:, 1] > episode.offsets[:, 0]
    last = np.full(len(episode.ids), -1, dtype=np.int64)  # of each group
    np.maximum.at(last, groups[wide], episode.offsets[wide, 1] - 1)
    owners = owner[last[groups]]
    found = (tokens[owners[tokens] == number] for number in range(len(parts)))
    return [unit for unit in found if len(unit)]


def _indivisible(episode: Episode) -> npt.NDArray[np.int64]:
    """Number the groups of tokens that share characters, int64 (T,), rising from 0; most tokens are a group of their own."""
    starts, ends = episode.offsets.T
    begins = np.where(ends > starts, starts, len(episode.text))  # tokens without characters share none
    ahead = np.minimum.accumulate(begins[::-1])[::-1]  # where the characters of this token and those after it begin
    reach = np.maximum.accumulate(ends)  # where the characters of this token and those before it end
    return np.concatenate([[0], ahead[1:] >= reach[:-1]]).cumsum()[: len(ends)]


def without(episode: Episode, tokens: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Give the mask, bool (T,), that leaves the tokens of some units out."""
    keep = np.ones(len(episode.ids), dtype=np.bool_)
    for unit in tokens:
        keep[unit] = False
    return keep
