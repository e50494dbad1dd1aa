"""Credit assigners: from one score per text to one reward per token.

Left out on purpose: any change of the sum that is not declared, and any model; an assigner that needs one takes a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode
from textgym.rewards import Reward

Scores: TypeAlias = Callable[[Sequence[Episode]], Sequence[float]]


@runtime_checkable
class Assigner(Protocol):
    """Splits the scores of finished texts over their tokens."""

    causal: bool
    """Whether what a token is paid never depends on what comes after it. Under reward-to-go a share that is not causal can
    be booked before the token that earned it, which then sees nothing of it."""
    conserves: bool
    """Whether the token rewards of a text add up to its score."""

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> Sequence[npt.ArrayLike]:
        """Give float (T,) per episode, 0 on tokens that the environment wrote."""
        ...


@dataclass(frozen=True)
class Last:
    """Pay the whole score on the last agent token: every token's reward-to-go sees all of it."""

    causal = True
    conserves = True

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.float64]]:
        """Give float64 (T,) per episode: score at the last agent token, else 0."""
        out = []
        for score, episode in zip(scores, episodes, strict=True):
            paid = np.zeros(len(episode.ids))
            paid[np.flatnonzero(episode.agent_mask)[-1]] = score
            out.append(paid)
        return out


@dataclass(frozen=True)
class Uniform:
    """Pay score / n on each of the n agent tokens.

    Not causal: token i is paid for what later tokens did, and its reward-to-go sees only the rest. Pair it with returns over
    the whole stream.
    """

    causal = False
    conserves = True

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.float64]]:
        """Give float64 (T,) per episode: score / n at each of the n agent tokens, else 0."""
        pairs = zip(scores, episodes, strict=True)
        return [score * episode.agent_mask / np.count_nonzero(episode.agent_mask) for score, episode in pairs]


@dataclass(frozen=True)
class Assigned:
    """A reward function: a text's score, split over its tokens by an assigner."""

    score: Scores
    assigner: Assigner

    def __call__(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Score the episodes and give token rewards, float (T,) each."""
        return list(self.assigner(self.score(episodes), episodes))
