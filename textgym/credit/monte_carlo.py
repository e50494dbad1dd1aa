"""Monte Carlo credit: a part is worth what it adds to the mean score of texts that go on from there.

Left out on purpose: the policy. ``textgym_agents.continuations`` lets one go on; any callable does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from textgym.credit.assigner import Asking, TokenShares, last_agent_token
from textgym.credit.excerpt import Spans, prefix, units
from textgym.episode import Episode

Continuations: TypeAlias = Callable[[Sequence[Episode], int], Sequence[Sequence[Episode]]]


@dataclass(frozen=True, eq=False)
class MonteCarlo(Asking):
    """Pay part i ``V(text up to i) - V(text up to i - 1)``, V the mean score of k continuations by the policy.

    VinePPO (Kazemnejad et al., 2024). V of the whole text is its score, V of nothing counts 0 (see ``prefix_difference``). The
    reward of a part estimates its advantage without bias: learn with ``gamma = 0`` to use it alone, or with
    reward-to-go, which is then the score with V as the baseline.

    Cost: k (n - 1) texts for n parts, all of them written and scored.
    """

    continuations: Continuations | None = None
    """``(unfinished episodes, k) -> k finished episodes each``, that begin with what is there."""
    spans: Spans | None = None
    """``(episode) -> parts``; None: each agent token."""
    causal_spans: bool = False
    """As for ``PrefixDifference``."""
    k: int = 4
    """Continuations of each prefix."""

    conserves = True

    def __post_init__(self) -> None:
        if self.continuations is None:
            raise ValueError("MonteCarlo has no continuations; give a callable (episodes, k) -> k finished episodes each")
        if self.k < 1:
            raise ValueError(f"k is {self.k}; it must be at least 1")

    @property
    def causal(self) -> bool:
        """True for tokens, and for spans that are declared so.

        Where tokens share a character the last of them is paid, and the next token decides whether it shares one: a bias of its
        baseline, on tokens of a character in pieces only.
        """
        return self.spans is None or self.causal_spans

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode.

        Raises:
            ValueError: there are not k continuations of each prefix.
        """
        assert self.continuations is not None
        ends = []
        for episode in episodes:
            last = last_agent_token(episode)
            ends.append([int(unit[-1]) for unit in units(episode, self.spans) if unit[-1] < last])
        begun = [prefix(episode, end) for episode, mine in zip(episodes, ends, strict=True) for end in mine]
        continued = list(self.continuations(begun, self.k)) if begun else []
        counts = [len(texts) for texts in continued]
        if counts != [self.k] * len(begun):
            raise ValueError(f"there are {counts} continuations of {len(begun)} texts; give {self.k} of each")
        asked = self.ask([text for texts in continued for text in texts])
        values = iter(asked.reshape(len(begun), self.k).mean(1))
        out = []
        for score, episode, mine in zip(scores, episodes, ends, strict=True):
            paid = np.zeros(len(episode.ids))
            paid[[*mine, last_agent_token(episode)]] = np.diff([0.0, *(next(values) for _ in mine), float(score)])
            out.append(paid)
        return out
