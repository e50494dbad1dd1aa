"""Sample efficiency as one number: after how many episodes one contestant has what another one ends with.

Left out on purpose: smoothing, and going on beyond the end of a curve. What was not reached was not reached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from textgym.suite.journal import Row
from textgym.suite.statistics import Estimate, Floats, interquartile_mean, stratified_bootstrap


def episodes_to_reach(ours: Sequence[Row], theirs: Sequence[Row], seed: int = 0) -> Estimate:
    """Estimate after how many episodes the interquartile mean of our curves first is that of their final scores.

    Args:
        ours: runs of one setting.
        theirs: runs of the one that we are measured by.
        seed: of the bootstrap; whole runs of both are drawn anew.

    Returns:
        Episodes, read linearly between the points of the curve; infinity where it is not reached. 0 where it was there before
        anything was learned.

    Raises:
        ValueError: our runs have points at different episodes.
    """
    episodes = np.asarray(ours[0]["curve"]["episodes"], dtype=np.float64)
    curves = [np.asarray(row["curve"]["score"], dtype=np.float64) for row in ours]
    if any(row["curve"]["episodes"] != ours[0]["curve"]["episodes"] for row in ours):
        raise ValueError("the runs have points at different episodes; compare runs of one setting")
    finals = np.asarray([row["final"]["score"] for row in theirs], dtype=np.float64)

    def statistic(drawn: list[Floats]) -> Floats:
        targets = interquartile_mean(drawn[1], axis=1)
        means = interquartile_mean(drawn[0], axis=1)
        return np.array([first_at(episodes, curve, target) for curve, target in zip(means, targets, strict=True)])

    # percentiles that are among the values, because between a number and infinity there is nothing
    resampled = stratified_bootstrap([curves, finals], statistic, seed)
    low, high = np.quantile(resampled, [0.025, 0.975], method="inverted_cdf")
    value = first_at(episodes, interquartile_mean(curves, axis=0), float(interquartile_mean(finals)))
    return Estimate(value, float(low), float(high))


def first_at(x: Floats, y: Floats, level: float) -> float:
    """Give the first x at which the line through the points is at ``level`` or above; infinity where it never is."""
    above = np.flatnonzero(y >= level)
    if len(above) == 0:
        return math.inf
    i = int(above[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))
