"""What an assigner is: from one score per text to one reward per token.

Left out on purpose: any model; an assigner that needs one takes a callable. And any change of the sum that is not declared.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode
from textgym.rewards import Reward

Scores: TypeAlias = Callable[[Sequence[Episode]], Sequence[float]]
TokenShares: TypeAlias = Sequence[npt.NDArray[np.float64]]


@runtime_checkable
class Assigner(Protocol):
    """Splits the scores of finished texts over their tokens.

    An assigner may also say ``last_share``, the share of the score that it is sure to leave on the last agent token (see
    ``KeepLast``), and ``bound(score)``, which gives it the task's own score of a text where it has none.
    """

    @property
    def causal(self) -> bool:
        """Whether what a token is paid, but for the last, never depends on what comes after it.

        Under reward-to-go a share that is not causal can be booked before the token that earned it, which then sees nothing
        of it.
        """
        ...

    @property
    def conserves(self) -> bool:
        """Whether the token rewards of a text add up to its score."""
        ...

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> Sequence[npt.ArrayLike]:
        """Give float (T,) per episode, 0 on tokens that the environment wrote."""
        ...


@dataclass(frozen=True)
class Assigned:
    """A reward function: a text's score, split over its tokens by an assigner.

    ``PromptTask`` takes it apart (``PromptTask.assigner``), so that the ledger knows score and assigner.
    """

    score: Scores
    assigner: Assigner

    def __call__(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Score the episodes and give token rewards, float (T,) each."""
        return list(bind(self.assigner, self.score)(self.score(episodes), episodes))


def bind(assigner: Assigner, score: Scores) -> Assigner:
    """Give an assigner that scores parts of texts, and has no score of its own, this one."""
    bound = getattr(assigner, "bound", None)
    return assigner if bound is None else bound(score)


class Tally:
    """Counts texts; copies made with ``deepcopy`` are the same tally, one in another process starts from 0."""

    def __init__(self) -> None:
        self.texts = 0
        self._lock = threading.Lock()  # reward workers may be threads

    def add(self, count: int) -> None:
        """Count ``count`` more texts."""
        with self._lock:
            self.texts += count

    def __deepcopy__(self, memo: dict[int, Any]) -> Tally:
        return self

    def __reduce__(self) -> tuple[type[Tally], tuple[()]]:
        return Tally, ()


@dataclass(frozen=True, eq=False)
class Asking:
    """What assigners share that have further texts scored: whom they ask, and how often they did."""

    score: Scores | None = None
    """``(episodes) -> floats``, also of texts that are only part of one (``textgym.credit.excerpt``); None: the task's own
    rewards, added up."""
    tally: Tally = field(default_factory=Tally, repr=False, kw_only=True)
    """Counts the texts that were scored on top of the finished ones; ``reward_calls`` reads it."""

    @property
    def reward_calls(self) -> int:
        """How many texts were scored so far, on top of the finished ones."""
        return self.tally.texts

    def bound(self, score: Scores) -> Self:
        """Give the same assigner, with the same tally, that asks ``score`` where it has none of its own."""
        return self if self.score is not None else replace(self, score=score)

    def ask(self, texts: Sequence[Episode]) -> npt.NDArray[np.float64]:
        """Score texts in one batch, float64 (len(texts),).

        Raises:
            ValueError: there is no score, or it gave something else than one finite number per text.
        """
        if self.score is None:
            raise ValueError(
                f"{type(self).__name__} has no score; give it one, or hand it to gym.make(..., assigner=...), which takes the "
                "task's own"
            )
        if len(texts) == 0:
            return np.zeros(0)
        self.tally.add(len(texts))
        given = list(self.score(texts))
        if len(given) != len(texts):
            raise ValueError(f"the score gave {len(given)} numbers for {len(texts)} texts; return one per text")
        values = np.array([float(value) for value in given])
        for i in np.flatnonzero(~np.isfinite(values))[:1]:
            raise ValueError(f"the score of {texts[i].text!r} is {values[i]}; scores are finite numbers")
        return values


def last_agent_token(episode: Episode) -> int:
    """Find the agent's last token.

    Raises:
        ValueError: there is none, so that no score can be paid.
    """
    tokens = np.flatnonzero(episode.agent_mask)
    if len(tokens) == 0:
        raise ValueError(f"episode {episode.episode_id} has no token of the agent's to pay a score on")
    return int(tokens[-1])


def by_weight(score: float, weights: npt.NDArray[np.float64], episode: Episode) -> npt.NDArray[np.float64]:
    """Split a score in proportion to weights, float64 (T,) each: ``score w_t / sum(w)``.

    Shares that float32 would round to 0 go to the last agent token, so that the sum stays.

    Raises:
        ValueError: a weight is negative or not finite, or they are all 0.
    """
    total = math.fsum(weights)
    if not (weights >= 0).all() or not 0 < total < math.inf:
        raise ValueError(
            f"the weights of episode {episode.episode_id} are {weights.tolist()}; they are finite, at least 0, and not all "
            "0 on the agent's tokens"
        )
    return small_to_last(score * (weights / total), episode)


def small_to_last(paid: npt.NDArray[np.float64], episode: Episode) -> npt.NDArray[np.float64]:
    """Give what float32 would round to 0, or nearly so, to the last agent token: float64 (T,), with the same sum."""
    small = np.abs(paid) < float(np.finfo(np.float32).smallest_subnormal)
    out = np.where(small, 0.0, paid)
    out[last_agent_token(episode)] += paid[small].sum()
    return out
