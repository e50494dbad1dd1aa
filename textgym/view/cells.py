"""An episode as cells, one per response token: what to write, what it earned, who wrote it.

Left out on purpose: how a cell looks. Colours, line breaks and marks belong to the views (``terminal``, ``image``), so
this file imports neither rich nor Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textgym.episode import Episode, Release
from textgym.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Cell:
    """One response token as a view writes it."""

    text: str
    """Characters of the response, or a vocabulary piece where the token holds none; raw, line breaks included."""
    reward: float | None
    """What the token earned; None while the text is still growing."""
    by_agent: bool
    """The agent chose the token."""
    stream: int
    """Stream of the token; -1 where the environment wrote it, and while the text is still growing."""


def cells(episode: Episode, release: Release | None, tokenizer: TextTokenizer) -> list[Cell]:
    """Give one cell per response token, in order; T of them.

    A character is written once, by the last token that holds it. A token that holds no character (a special token) is
    written as its vocabulary piece. A token whose characters all belong to later tokens (the first bytes of a split
    character) has an empty text, unless it earned something: then it is its vocabulary piece too, so that its reward
    stands on something. So the cells of an unrewarded text read as the text, however its tokens split characters.

    Args:
        episode: the finished episode, or the text so far.
        release: its release; None while the text is still growing.
        tokenizer: the tokenizer that the episode was written with.

    Raises:
        ValueError: the release is of another episode.
    """
    count = len(episode.ids)
    if release is not None and len(release.token_rewards) != count:
        raise ValueError(
            f"release has {len(release.token_rewards)} token rewards but episode {episode.episode_id} has {count} response "
            "tokens; pass the release of this episode, or None while its text is still growing"
        )
    rewards = [None] * count if release is None else [float(reward) for reward in release.token_rewards]
    streams = [-1] * count if release is None else [int(stream) for stream in release.streams]
    return [
        Cell(_written(token, held, own, rewards[i], tokenizer), rewards[i], bool(episode.agent_mask[i]), streams[i])
        for i, (token, (held, own)) in enumerate(zip(episode.ids.tolist(), _characters(episode), strict=True))
    ]


def summary(shown: Sequence[Cell], criteria: Mapping[str, float]) -> str:
    """Write the return, the sum of each stream where there are several, and the criteria, in one line.

    Args:
        shown: the cells of a released episode.
        criteria: the release's totals by name.
    """
    totals: dict[int, float] = {}
    for cell in shown:
        totals[cell.stream] = totals.get(cell.stream, 0.0) + (cell.reward or 0.0)
    figures = {"return": sum(totals.values())}
    streams = sorted(stream for stream in totals if stream >= 0)
    if len(streams) > 1:
        figures |= {f"stream {stream}": totals[stream] for stream in streams}
    # Rounded first: float32 rewards that cancel leave 1e-9, which is no return; + 0.0 turns -0.0 into 0.0.
    return "   ".join(f"{name} {round(value, 6) + 0.0:+.3g}" for name, value in [*figures.items(), *criteria.items()])


def _characters(episode: Episode) -> list[tuple[str, str]]:
    """Give the characters that each token holds, and those of them that no later token holds."""
    owner = np.full(len(episode.text), -1)
    for i, (start, end) in enumerate(episode.offsets.tolist()):
        owner[start:end] = i
    return [
        (episode.text[start:end], "".join(episode.text[at] for at in range(start, end) if owner[at] == i))
        for i, (start, end) in enumerate(episode.offsets.tolist())
    ]


def _written(token: int, held: str, own: str, reward: float | None, tokenizer: TextTokenizer) -> str:
    if own or (held and not reward):
        return own
    return tokenizer.piece(token)
