"""Statistics of few runs: interquartile mean, stratified bootstrap, probability of improvement.

Those of Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021); the formulas are written
here anew. Left out on purpose: tests of significance. An interval says how little a few runs say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu, trim_mean

Floats: TypeAlias = npt.NDArray[np.float64]
Strata: TypeAlias = Sequence[npt.ArrayLike]
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A statistic and the interval that the bootstrap gives it."""

    value: float
    """Of the runs themselves."""
    low: float
    """2.5th percentile of the resamples'."""
    high: float
    """97.5th percentile of the resamples'."""


def interquartile_mean(scores: npt.ArrayLike, axis: int | None = None) -> Floats:
    """Give the mean of what is left when the lowest and highest quarter are cut off.

    Of n scores, floor(n / 4) are cut off at each end (``scipy.stats.trim_mean``, 25 %): of three runs none, so that it is their
    mean.

    Args:
        scores: any shape.
        axis: along which; None: over all.
    """
    return np.asarray(trim_mean(np.asarray(scores, dtype=np.float64), 0.25, axis=axis))  # type: ignore[arg-type]


def stratified_bootstrap(
    strata: Strata, statistic: Callable[[list[Floats]], Floats], seed: int, resamples: int = RESAMPLES
) -> Floats:
    """Draw from each stratum as many runs as it has, with replacement, and take the statistic; and that again and again.

    Args:
        strata: float (n_k, ...) per stratum k (a task; or one contestant's runs of a task): the leading axis are its runs.
        statistic: from arrays (B, n_k, ...), B resamples, to (B, ...).
        seed: of the draws.
        resamples: B.

    Returns:
        float (B, ...).

    Raises:
        ValueError: a stratum has no run.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for runs in (np.asarray(stratum, dtype=np.float64) for stratum in strata):
        if len(runs) == 0:
            raise ValueError("a stratum has no runs, so nothing can be drawn from it; leave it out")
        drawn.append(runs[rng.integers(len(runs), size=(resamples, len(runs)))])
    return statistic(drawn)


def interval(resampled: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Give the percentile interval of resampled statistics, (B, ...) -> two of (...)."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def estimate_iqm(strata: Strata, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Estimate the interquartile mean over all runs of all strata, float (n_k,) each, with its 95 % interval."""

    def statistic(drawn: list[Floats]) -> Floats:
        return interquartile_mean(np.concatenate(drawn, axis=1), axis=1)

    value = interquartile_mean(np.concatenate([np.asarray(runs, dtype=np.float64) for runs in strata]))
    low, high = interval(stratified_bootstrap(strata, statistic, seed, resamples))
    return Estimate(float(value), float(low), float(high))


def improvement(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> Floats:
    """Give the probability that a run of ours is better than one of theirs, ties counted half.

    ``P(X > Y) = U / (n m)`` with the Mann-Whitney statistic U = number of pairs with x > y, plus half of those with x = y.

    Args:
        ours: float (..., n).
        theirs: float (..., m).
    """
    x, y = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return mannwhitneyu(x, y, axis=-1, method="exact").statistic / (x.shape[-1] * y.shape[-1])


def estimate_improvement(ours: Strata, theirs: Strata, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Estimate the probability of improvement, averaged over tasks, with its 95 % interval.

    Args:
        ours: float (n_k,) per task.
        theirs: float (m_k,) per task, in the same order.
        seed: of the bootstrap; runs of both are drawn anew.
        resamples: how often.

    Raises:
        ValueError: they are not of the same tasks.
    """
    if len(ours) != len(theirs) or len(ours) == 0:
        raise ValueError(f"there are {len(ours)} tasks of ours and {len(theirs)} of theirs; compare what both have done")

    def statistic(drawn: list[Floats]) -> Floats:
        pairs = zip(drawn[: len(ours)], drawn[len(ours) :], strict=True)
        return np.mean([improvement(x, y) for x, y in pairs], axis=0)

    value = np.mean([improvement(x, y) for x, y in zip(ours, theirs, strict=True)])
    low, high = interval(stratified_bootstrap([*ours, *theirs], statistic, seed, resamples))
    return Estimate(float(value), float(low), float(high))


def estimate_curve(scores: npt.ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Floats, Floats, Floats]:
    """Estimate the interquartile mean over runs at each point of a curve; whole runs are drawn anew.

    Args:
        scores: float (runs, points).
        seed: of the bootstrap.
        resamples: how often.

    Returns:
        value, low and high, float (points,) each.
    """
    runs = np.asarray(scores, dtype=np.float64)

    def statistic(drawn: list[Floats]) -> Floats:
        return interquartile_mean(drawn[0], axis=1)

    low, high = interval(stratified_bootstrap([runs], statistic, seed, resamples))
    return interquartile_mean(runs, axis=0), low, high
