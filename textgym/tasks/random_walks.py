"""Random walks: find the shortest way to a goal in a graph that only its walks show.

Left out on purpose: an adjacency matrix in the prompt. The model learns the graph from offline walks (the demonstrations) and
from what its own walks earn, as in the benchmark that trlX is measured on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_NODES = "abcdefghijklmnopqrstu"
_GOAL = 0
_LONGEST = 10  # nodes of a walk, its first one included


class RandomWalks(Task):
    """Walk from a given node to the goal ``a`` along edges that the text never shows.

    Description:
        A directed graph of 21 nodes, printed ``a`` to ``u``, drawn from ``graph_seed``: an edge with probability .1, no loops,
        every node with a way out and a way to the goal in under 10 nodes. A walk is a row of nodes, at most 10 of them.

    Prompt:
        The first node, uniformly one of those that the offline walks start from.

    Action space:
        One token of the built-in tokenizer: 21 nodes, end-of-text.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        A walk of L nodes to the first ``a`` has optimality ``(10 - L) / (10 - L*)``, L* the nodes of the shortest; one with a
        step that is no edge, or that does not arrive, has 0. ``reward="scalar"`` pays it on the last token. ``reward="dense"``
        judges each move once the walk is over, and sums to the same: the last token earns 1, and the loss ``1 - optimality``
        is split over the moves by the nodes that each of them wasted (a move that brings the goal no nearer wastes one, a move
        away from it more; a step that is no edge wastes all that is left). One stream: later moves are the earlier ones' doing.

    Episode end:
        The goal, end-of-text, or 9 tokens.

    Score:
        Mean optimality. Success: the walk is a shortest one.

    Arguments:
        graph_seed: which graph and which offline walks; 1000 is the reference.
        reward: "scalar" or "dense".
        tokenizer: default: the built-in one.

    Version history:
        v0: first version. Graph, walks and optimality as in trlX's ``randomwalks`` example.
    """

    max_prompt_tokens = 1
    stop = (_NODES[_GOAL],)

    def __init__(self, graph_seed: int = 1000, reward: Literal["scalar", "dense"] = "scalar", tokenizer: Any = None) -> None:
        if reward not in ("scalar", "dense"):
            raise ValueError(f"reward is {reward!r}; allowed are 'scalar' and 'dense'")
        self.reward = reward
        self.tokenizer = symbol_tokenizer(list(_NODES)) if tokenizer is None else TextTokenizer(tokenizer)
        self.max_prompt_tokens = 1 if tokenizer is None else 4
        self.max_new_tokens = _LONGEST - 1 if tokenizer is None else 4 * _LONGEST
        rng = np.random.RandomState(graph_seed)
        self.edges = _draw_graph(rng)
        self.distance = _distances(self.edges)
        self.walks = _draw_walks(rng, self.edges, count=1000)
        self.starts = sorted({walk[0] for walk in self.walks})
        """Nodes that a walk may start from."""

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw the first node."""
        return Prompt(_NODES[int(rng.choice(self.starts))])

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give the optimality, or one number per token; see the datasheet."""
        if self.reward == "scalar":
            return [self.optimality(episode) for episode in episodes]
        return [self._moves(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether the walk is a shortest one."""
        return self.optimality(episode) == 1.0

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean optimality."""
        return float(np.mean([self.optimality(episode) for episode in episodes])) if episodes else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Share of walks that arrive."""
        return {"arrived": float(np.mean([self.optimality(episode) > 0 for episode in episodes])) if episodes else 0.0}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw from the 1,000 offline walks, as they are: most of them are far from shortest.

        A walk is drawn again only once all others have been, so 1,000 at a time are each of them once, in random order.
        """
        passes = [rng.permutation(len(self.walks)) for _ in range(-(-count // len(self.walks)))]
        drawn = [self.walks[int(i)] for i in np.concatenate([*passes, np.zeros(0, dtype=np.int64)])[:count]]
        return [(Prompt(_NODES[walk[0]]), "".join(_NODES[node] for node in walk[1:])) for walk in drawn]

    def optimality(self, episode: Episode) -> float:
        """Give (10 - L) / (10 - L*), or 0 for a walk that is none or does not arrive."""
        walk = self._walk(episode)
        if walk is None or walk[-1] != _GOAL:
            return 0.0
        return (_LONGEST - len(walk)) / (_LONGEST - 1 - int(self.distance[walk[0]]))

    def _walk(self, episode: Episode) -> list[int] | None:
        """Read the nodes up to the goal; None where a step is no edge, or the walk has too many nodes."""
        nodes = _nodes(episode)
        fits = len(nodes) <= _LONGEST and all(second >= 0 and self.edges[first, second] for first, second in pairwise(nodes))
        return nodes if fits else None

    def _moves(self, episode: Episode) -> npt.NDArray[np.float64]:
        """Judge each move by the nodes that it wasted; the sum is the optimality."""
        paid = np.zeros(len(episode.ids))
        optimality = self.optimality(episode)
        nodes = _nodes(episode)
        budget = float(_LONGEST - 1 - self.distance[nodes[0]])
        waste = np.zeros(max(1, len(nodes) - 1))
        for i, (first, second) in enumerate(pairwise(nodes)):
            if i + 1 >= _LONGEST or second < 0 or not self.edges[first, second]:
                waste[i] = max(1.0, budget - waste.sum())
                break
            waste[i] = 1 + self.distance[second] - self.distance[first]
        if waste.sum() == 0 and optimality < 1:  # every move was right, and the walk was given up
            waste[-1] = 1.0
        paid[-1] = 1.0
        if optimality < 1:
            losses = (1 - optimality) * waste / waste.sum()
            tokens = [episode.token_at(i) for i in range(len(nodes) - 1)] or [len(paid) - 1]
            np.subtract.at(paid, tokens, losses)
        return paid


def _nodes(episode: Episode) -> list[int]:
    """Read prompt and response up to the goal, int from 0; -1 for a character that is no node."""
    nodes = [_NODES.find(character) for character in episode.prompt.text + episode.text]
    return nodes[: nodes.index(_GOAL, 1) + 1] if _GOAL in nodes[1:] else nodes


def _draw_graph(rng: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Draw edges (from, to), bool (21, 21); the goal leads to itself."""
    count = len(_NODES)
    while True:
        edges = rng.rand(count, count) > 0.9
        np.fill_diagonal(edges, False)
        if not edges.any(1).all():
            continue
        edges[_GOAL] = False
        edges[_GOAL, _GOAL] = True
        if (_distances(edges) < _LONGEST - 1).all():  # else the shortest way leaves no room to be better than
            return edges


def _distances(edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Count the moves from each node to the goal, int64 (21,)."""
    count = len(edges)
    distance = np.full(count, count, dtype=np.int64)
    distance[_GOAL] = 0
    for _ in range(count):
        distance = np.minimum(distance, 1 + np.where(edges, distance, count).min(1))
    return distance


def _draw_walks(rng: np.random.RandomState, edges: npt.NDArray[np.bool_], count: int) -> list[list[int]]:
    """Draw uniformly random walks: from a node that is not the goal, to the goal or to 10 nodes."""
    walks = []
    for _ in range(count):
        walk = [int(rng.randint(1, len(edges)))]
        while walk[-1] != _GOAL and len(walk) < _LONGEST:
            walk.append(int(rng.choice(np.flatnonzero(edges[walk[-1]]))))
        walks.append(walk)
    return walks
