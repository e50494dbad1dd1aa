"""Learning curves at equal tokens: what runs had reached when their agents had learned from the same number of tokens.

Left out on purpose: extrapolation. Runs are compared as far as all of them went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.suite.journal import Row
from textgym.suite.statistics import Floats, estimate_curve


@dataclass(frozen=True)
class Band:
    """A sample-efficiency curve of some runs."""

    tokens: Floats
    """(points,), learned from."""
    reward_calls: Floats
    """(points,), texts rewarded until there, mean over the runs."""
    score: Floats
    """(points,), interquartile mean."""
    low: Floats
    """(points,), lower end of the 95 % interval."""
    high: Floats
    """(points,), upper end."""


def equal_tokens(rows: Sequence[Row]) -> int:
    """Find how many tokens all runs have: the least that any of them learned from; runs that played nothing do not count."""
    return min((total for total in (row["curve"]["tokens"][-1] for row in rows) if total), default=0)


def at_tokens(row: Row, name: str, tokens: float | Floats) -> Floats:
    """Read a column of a run's curve after ``tokens`` tokens, linearly between its points.

    An agent that plays nothing (it learns from demonstrations) has one point, which holds everywhere.

    Raises:
        ValueError: the run did not go so far.
    """
    curve, points = row["curve"], np.asarray(tokens, dtype=np.float64)
    if curve["tokens"][-1] and points.max() > curve["tokens"][-1]:
        raise ValueError(
            f"the run {row['key']}, seed {row['seed']}, has {curve['tokens'][-1]} tokens; it is asked for {points.max():g}"
        )
    return np.interp(points, curve["tokens"], curve[name])


def band(rows: Sequence[Row], tokens: int, points: int = 33, seed: int = 0) -> Band:
    """Give the curve of some runs of one setting from 0 to ``tokens``."""
    grid = np.linspace(0.0, tokens, points)
    score, low, high = estimate_curve([at_tokens(row, "score", grid) for row in rows], seed)
    calls = np.mean([at_tokens(row, "reward_calls", grid) for row in rows], axis=0)
    return Band(grid, calls, score, low, high)
