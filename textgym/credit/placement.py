"""Assigners that look at nothing but where the tokens stand: last, uniform, discounted, and a share kept on the last.

Left out on purpose: the text and its meaning. They cost nothing and know nothing; what they do to learning is in how much
of the score a token's reward-to-go sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.credit.assigner import Assigner, Scores, TokenShares, bind, by_weight, last_agent_token, small_to_last
from textgym.credit.excerpt import Spans, units
from textgym.episode import Episode


@dataclass(frozen=True)
class Last:
    """Pay the whole score on the last agent token: every token's reward-to-go sees all of it."""

    causal = True
    conserves = True
    last_share = 1.0
    reward_calls = 0

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode: score at the last agent token, else 0."""
        out = []
        for score, episode in zip(scores, episodes, strict=True):
            paid = np.zeros(len(episode.ids))
            paid[last_agent_token(episode)] = score
            out.append(paid)
        return out


@dataclass(frozen=True)
class Uniform:
    """Pay score / n on each of the n agent tokens, or on the last token of each of n spans (Gangwani et al., 2020).

    Not causal: token i is paid for what later tokens did, and its reward-to-go sees only the rest. Pair it with returns over
    the whole stream.
    """

    spans: Spans | None = None
    """``(episode) -> parts``, as those of ``textgym.parts``; None: each agent token. Without any span: the last token."""

    causal = False
    conserves = True
    reward_calls = 0

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode: score / n at each of the n tokens, else 0."""
        out = []
        for score, episode in zip(scores, episodes, strict=True):
            weights = episode.agent_mask.astype(np.float64)
            if self.spans is not None:
                ends = [unit[-1] for unit in units(episode, self.spans)] or [last_agent_token(episode)]
                weights = np.zeros(len(episode.ids))
                weights[ends] = 1.0
            out.append(by_weight(score, weights, episode))
        return out


@dataclass(frozen=True)
class Discounted:
    """Smear the score backwards: of n agent tokens, token i (from 0) gets ``score d^(n-1-i) / sum_j d^(n-1-j)``.

    An eligibility trace (Sutton, 1984) with weights that add up to 1. Not causal, as ``Uniform``, to which it comes for d = 1;
    for d = 0 it is ``Last``.
    """

    discount: float = 0.9
    """d, in [0, 1], per agent token."""

    causal = False
    conserves = True
    reward_calls = 0

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {self.discount}; it must be in [0, 1]")

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode, 0 on tokens that the environment wrote."""
        out = []
        for score, episode in zip(scores, episodes, strict=True):
            weights = np.zeros(len(episode.ids))
            weights[episode.agent_mask] = self.discount ** np.arange(np.count_nonzero(episode.agent_mask))[::-1]
            out.append(by_weight(score, weights, episode))
        return out


@dataclass(frozen=True)
class KeepLast:
    """Pay ``share`` of the score on the last agent token, and let another assigner split the rest.

    Every token's reward-to-go then sees at least that share of the whole score, which repairs an assigner that is not causal.
    """

    assigner: Assigner
    share: float = 0.5
    """In (0, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")

    @property
    def causal(self) -> bool:
        """As the other assigner."""
        return self.assigner.causal

    @property
    def conserves(self) -> bool:
        """As the other assigner."""
        return self.assigner.conserves

    @property
    def last_share(self) -> float:
        """The share that is kept."""
        return self.share

    @property
    def reward_calls(self) -> int:
        """As the other assigner."""
        return getattr(self.assigner, "reward_calls", 0)

    def bound(self, score: Scores) -> KeepLast:
        """Give the same with the other assigner bound."""
        return KeepLast(bind(self.assigner, score), self.share)

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode: ``(1 - share) split + share score`` at the last agent token."""
        out = []
        for score, split, episode in zip(scores, self.assigner(scores, episodes), episodes, strict=True):
            paid = small_to_last((1.0 - self.share) * np.asarray(split, dtype=np.float64), episode)
            paid[last_agent_token(episode)] += self.share * score
            out.append(paid)
        return out
