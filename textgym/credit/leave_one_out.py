"""Leave-one-out: a part is worth what the score falls by when it is taken out.

Left out on purpose: putting something in its place. What would be neutral is a question of the language; taking characters
out is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.credit.assigner import Asking, TokenShares, last_agent_token
from textgym.credit.excerpt import Spans, excerpt, units, without
from textgym.episode import Episode


@dataclass(frozen=True, eq=False)
class LeaveOneOut(Asking):
    """Pay part i ``v(all) - v(all but i)``, on its last token, and what these leave of the score on the last agent token.

    Difference rewards (Wolpert and Tumer, 2001); on texts, erasure (Li, Monroe and Jurafsky, 2016). Parts that only matter
    together are each paid all of it, and parts that can stand in for each other nothing: the rest on the last token, negative
    or positive, keeps the sum. Not causal: what stands after a part decides what it is worth.

    Cost: n texts for n parts. A text without any token of the agent's counts 0 and is not asked for.
    """

    spans: Spans | None = None
    """``(episode) -> parts``; None: each agent token."""

    causal = False
    conserves = True

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode."""
        parts = [units(episode, self.spans) for episode in episodes]
        asked = []
        for episode, mine in zip(episodes, parts, strict=True):
            kept = [without(episode, [unit]) for unit in mine]
            asked.append([keep if (keep & episode.agent_mask).any() else None for keep in kept])
        masks = [(e, keep) for e, mine in zip(episodes, asked, strict=True) for keep in mine if keep is not None]
        values = iter(self.ask([excerpt(episode, keep) for episode, keep in masks]))
        out = []
        for score, episode, mine, kept in zip(scores, episodes, parts, asked, strict=True):
            paid = np.zeros(len(episode.ids))
            for unit, keep in zip(mine, kept, strict=True):
                paid[unit[-1]] = score - (0.0 if keep is None else next(values))
            paid[last_agent_token(episode)] += score - paid.sum()
            out.append(paid)
        return out
