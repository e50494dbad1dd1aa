"""Shapley values of the parts of a text, exactly or from sampled orders; Owen values where parts stand inside larger ones.

Left out on purpose: a generator that runs on. The orders that are drawn for a text depend on the seed and its tokens alone, so
that a text is paid the same in whatever batch it comes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.credit.assigner import Asking, TokenShares, last_agent_token
from textgym.credit.excerpt import Spans, excerpt, units, without
from textgym.episode import Episode

Groups: TypeAlias = tuple[tuple[int, ...], ...]
Term: TypeAlias = tuple[int, float, int]  # player, weight, the players before it as bits


@dataclass(frozen=True, eq=False)
class Shapley(Asking):
    """Pay each part its mean marginal contribution over all orders in which the parts could be put into the text.

    ``phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S and i) - v(S))`` (Shapley, 1953), on the part's last token;
    v of a text without any token of the agent's is 0. With ``groups``, only orders that keep the parts of a group together
    count: Owen values (Owen, 1977), which add up to the groups' own Shapley values. What stands in no part is always
    there, and its score is paid on the last agent token. Beyond ``exact`` parts, ``permutations`` orders are drawn (Castro,
    Gomez and Tejada, 2009); each of them adds up to the score. Not causal: what stands after a part decides what it is worth.

    Cost: 2^n - 2 texts for n <= ``exact`` parts in one group, fewer in several; at most ``permutations`` (n - 1) beyond; one
    more where something stands in no part.
    """

    spans: Spans | None = None
    """``(episode) -> parts``; None: each agent token."""
    groups: Spans | None = None
    """``(episode) -> larger parts`` that hold the spans: sentences of words; a span in none of them is a group of its own."""
    exact: int = 8
    """Most parts for which every order is counted."""
    permutations: int = 64
    """Orders that are drawn where there are more."""
    seed: int = 0
    """Of the orders."""

    causal = False
    conserves = True

    def __post_init__(self) -> None:
        if self.exact < 0 or self.exact > 16 or self.permutations < 1:
            raise ValueError(
                f"exact is {self.exact} and permutations {self.permutations}; exact is 0 to 16 (2^16 texts), "
                "permutations at least 1"
            )

    def __call__(self, scores: Sequence[float], episodes: Sequence[Episode]) -> TokenShares:
        """Give float64 (T,) per episode."""
        parts = [units(episode, self.spans) for episode in episodes]
        terms = [self._terms(episode, mine) for episode, mine in zip(episodes, parts, strict=True)]
        tables: list[dict[int, float]] = []
        asked: list[tuple[dict[int, float], int]] = []
        texts = []
        for episode, mine, mine_terms, score in zip(episodes, parts, terms, scores, strict=True):
            everyone = (1 << len(mine)) - 1
            table = {everyone: float(score)}
            for coalition in sorted({0} | {b for _, _, b in mine_terms} | {b | 1 << p for p, _, b in mine_terms}):
                keep = without(episode, [unit for player, unit in enumerate(mine) if not coalition >> player & 1])
                if coalition == everyone:
                    continue
                if not (keep & episode.agent_mask).any():
                    table[coalition] = 0.0
                    continue
                asked.append((table, coalition))
                texts.append(excerpt(episode, keep))
            tables.append(table)
        for (table, coalition), value in zip(asked, self.ask(texts), strict=True):
            table[coalition] = float(value)
        out = []
        for score, episode, mine, mine_terms, table in zip(scores, episodes, parts, terms, tables, strict=True):
            shares = np.zeros(len(mine))
            for player, weight, before in mine_terms:
                shares[player] += weight * (table[before | 1 << player] - table[before])
            paid = np.zeros(len(episode.ids))
            paid[[unit[-1] for unit in mine]] = shares
            paid[last_agent_token(episode)] += score - shares.sum()
            out.append(paid)
        return out

    def _terms(self, episode: Episode, parts: list[npt.NDArray[np.int64]]) -> Sequence[Term]:
        groups = self._groups(episode, parts)
        if len(parts) <= self.exact:
            return owen_terms(groups)
        rng = np.random.default_rng([self.seed, *episode.ids.tolist()])
        return list(_drawn_terms(groups, self.permutations, rng))

    def _groups(self, episode: Episode, parts: list[npt.NDArray[np.int64]]) -> Groups:
        """Sort the parts into groups; without ``groups``, all of them are one."""
        if self.groups is None:
            return (tuple(range(len(parts))),)
        found: dict[object, list[int]] = {}
        larger = sorted(self.groups(episode))
        for player, unit in enumerate(parts):
            character = int(episode.last_characters()[unit[-1]])
            holds = [start for start, end in larger if start <= character < end]
            if len(holds) > 1:
                raise ValueError(f"the groups of episode {episode.episode_id} overlap at character {character}")
            found.setdefault(holds[0] if holds else ("alone", player), []).append(player)
        return tuple(tuple(members) for members in found.values())


@lru_cache(maxsize=256)
def owen_terms(groups: Groups) -> tuple[Term, ...]:
    """List the terms of the Owen values; of the Shapley values where there is one group, or none has two members.

    Player i of group j, with H a set of other groups (m in all) and S a set of other members of j (of k)::

        phi_i = sum over H, S of |H|! (m - |H| - 1)! / m!  |S|! (k - |S| - 1)! / k!  (v(H, S, i) - v(H, S))
    """
    terms = []
    for group in groups:
        others = [sum(1 << player for player in other) for other in groups if other is not group]
        for player in group:
            mates = [1 << mate for mate in group if mate != player]
            for outer, inner in itertools.product(_subsets(others), _subsets(mates)):
                weight = _weight(len(outer), len(groups)) * _weight(len(inner), len(group))
                terms.append((player, weight, sum(outer) + sum(inner)))
    return tuple(terms)


def _drawn_terms(groups: Groups, permutations: int, rng: np.random.Generator) -> Iterator[Term]:
    for _ in range(permutations):
        before = 0
        for group in rng.permutation(len(groups)):
            for player in rng.permutation(groups[group]).tolist():
                yield player, 1.0 / permutations, before
                before |= 1 << player


def _subsets(items: Sequence[int]) -> list[tuple[int, ...]]:
    return [chosen for size in range(len(items) + 1) for chosen in itertools.combinations(items, size)]


def _weight(size: int, count: int) -> float:
    """Give the chance that in a random order of ``count`` exactly these ``size`` come before a given other one."""
    return 1.0 / (count * math.comb(count - 1, size))
