"""Attention as credit: a share of the score laid where a model looked.

Left out on purpose: the model. ``textgym_agents.attention_credit`` reads weights off a causal language model; any
callable does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.credit.assigner import TokenShares, by_weight, last_agent_token
from textgym.episode import Episode

Weights: TypeAlias = Callable[[Sequence[Episode]], Sequence[npt.ArrayLike]]


@dataclass(frozen=True)
class Attention:
    """Pay ``beta score w_t / sum(w)`` on agent token t, and ``(1 - beta) score`` on the last one (Chan et al., 2024).

    The paper takes w from the last layer of the reward model, at its last position, averaged over heads. Not causal: a token is
    paid of what later tokens earned; with beta < 1 the last token keeps a part that every token's reward-to-go sees.

    Cost: no reward call; one pass of the model whose attention it is.
    """

    weights: Weights
    """``(episodes) -> float (T,) each``, at least 0; read at agent tokens only."""
    beta: float = 0.5
    """Share of the score that is laid by attention, in [0, 1]."""

    causal = False
    conserves = True
    reward_calls = 0

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}; it must be in [0, 1]")

    @property
    def last_share(self) -> float:
        """The share that stays on the last agent token."""
        return 1.0 - self.beta

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode.

        Raises:
            ValueError: the weights of an episode have another shape, are negative, not finite, or all 0.
        """
        out = []
        for score, episode, given in zip(scores, episodes, self.weights(episodes), strict=True):
            weights = np.array(given, dtype=np.float64)
            if weights.shape != episode.ids.shape:
                raise ValueError(
                    f"the weights of episode {episode.episode_id} have shape {weights.shape}; give one per response token, "
                    f"{episode.ids.shape}"
                )
            weights[~episode.agent_mask] = 0.0
            paid = by_weight(self.beta * score, weights, episode)
            paid[last_agent_token(episode)] += (1.0 - self.beta) * score
            out.append(paid)
        return out
