"""Prefix difference: a part is worth what the score of the text rose by when it was written.

Left out on purpose: a score of the text before its first token. It counts 0, so that the shares add up to the score; it could
shift the first part's share by a constant of the prompt, which teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.credit.assigner import Asking, TokenShares, last_agent_token
from textgym.credit.excerpt import Spans, prefix, units
from textgym.episode import Episode


@dataclass(frozen=True, eq=False)
class PrefixDifference(Asking):
    """Pay part i ``v(parts up to i) - v(parts up to i - 1)``, on its last token; the last agent token gets the rest.

    Potential-based shaping (Ng, Harada and Russell, 1999) with the score of what is there as the potential, v of nothing = 0
    and v of the whole text its score. Reward-to-go is ``score - v(text before the part)``: the score with a baseline, unbiased
    whatever v says of unfinished texts.

    Cost: n - 1 texts for n parts.
    """

    spans: Spans | None = None
    """``(episode) -> parts``; None: each agent token."""
    causal_spans: bool = False
    """Whether where a part ends is fixed by the text up to there. Where it is not (a word ends when a space follows), the
    baseline of the next token depends on that token itself, which biases its gradient."""

    conserves = True

    @property
    def causal(self) -> bool:
        """True for tokens, and for spans that are declared so.

        Where tokens share a character the last of them is paid, and the next token decides whether it shares one: a bias of its
        baseline, on tokens of a character in pieces only.
        """
        return self.spans is None or self.causal_spans

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode."""
        ends = []
        for episode in episodes:
            last = last_agent_token(episode)
            ends.append([int(unit[-1]) for unit in units(episode, self.spans) if unit[-1] < last])
        values = iter(self.ask([prefix(e, end) for e, mine in zip(episodes, ends, strict=True) for end in mine]))
        out = []
        for score, episode, mine in zip(scores, episodes, ends, strict=True):
            paid = np.zeros(len(episode.ids))
            levels = [0.0, *(next(values) for _ in mine), float(score)]
            paid[[*mine, last_agent_token(episode)]] = np.diff(levels)
            out.append(paid)
        return out
