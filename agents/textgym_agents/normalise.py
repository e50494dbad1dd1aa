"""Sizes of rewards and advantages: whitening of one collection, a running scale of rewards; pure functions.

Left out on purpose: normalisation per group of one prompt and per stream (see ``whiten``), clipping of rewards, and the
communication between processes: what is given for that adds up over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-6
"""A spread below this share of the numbers' own size is rounding, not something to scale by."""


def moments(x: Tensor, mask: Tensor) -> Tensor:
    """Give count, sum and sum of squares of ``x`` where ``mask``, float64 (3,): they add up over processes."""
    kept = torch.where(mask, x, 0).double()
    return torch.stack([mask.sum().double(), kept.sum(), kept.square().sum()])


def whiten(x: Tensor, mask: Tensor, totals: Tensor | None = None) -> Tensor:
    """Shift and scale ``x`` to mean 0 and deviation 1 where ``mask``: (x - mean) / std, 0 elsewhere.

    The deviation is the population's, so one token is no special case. Where it is 0 up to rounding (a constant mass, a
    batch of one) there is nothing to scale and x - mean is returned.

    All streams share one mean and one deviation. A deviation per stream would give each the same say whatever its rewards
    are worth, undo the weights that the task gave, and blow up the critic's noise in a stream that has nothing to learn;
    and the same number need not mean the same part in two episodes. The shared mean is one more baseline, to all alike.

    Args:
        x: float, any shape.
        mask: bool, the same shape.
        totals: ``moments`` added up over all processes; default: those of ``x``.
    """
    count, total, squares = (moments(x, mask) if totals is None else totals).unbind()
    mean = total / count.clamp(min=1)
    std = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    size = (squares / count.clamp(min=1)).sqrt()
    std = torch.where(std > ROUNDING * size, std, 1.0)
    return torch.where(mask, (x - mean) / std, 0).to(x.dtype)


def return_moments(token_rewards: Tensor, streams: Tensor, agent_mask: Tensor) -> Tensor:
    """Give what ``RewardScale.update`` needs to know of a collection; it adds up over processes.

    The unit is one stream of one episode, and its return the sum of its token rewards, without discount. Sums over whole
    episodes would not do: with a constant mass they are all the same, and 0 where what one part wins another loses.

    Args:
        token_rewards: float (E, T).
        streams: int (E, T); read at agent tokens only.
        agent_mask: bool (E, T).

    Returns:
        float64 (3,): number of returns, sum of their squares, sum of the squares of their sizes (sums of |reward|).
    """
    rows = torch.arange(len(streams), device=streams.device)[:, None].expand_as(streams)
    kinds, index = torch.unique(torch.stack([rows[agent_mask], streams[agent_mask]]), dim=1, return_inverse=True)
    rewards = token_rewards[agent_mask].double()
    returns, sizes = (rewards.new_zeros(kinds.shape[1]).index_add_(0, index, x) for x in (rewards, rewards.abs()))
    return torch.stack([returns.new_tensor(len(returns)), returns.square().sum(), sizes.square().sum()])


@dataclass(frozen=True)
class RewardScale:
    """Running root mean square of the returns of streams; three numbers to save with the learner."""

    count: float = 0.0
    """How many returns were seen."""
    squares: float = 0.0
    """Sum of their squares."""
    sizes: float = 0.0
    """Sum of the squares of their sizes, which tells a small return from rounding."""

    def update(self, totals: Tensor) -> RewardScale:
        """Add a collection.

        Args:
            totals: ``return_moments``, added up over all processes so that all of them scale alike.

        Raises:
            ValueError: a total is not finite; the scale stays as it was.
        """
        count, squares, sizes = totals.tolist()
        if not all(math.isfinite(x) for x in (count, squares, sizes)):
            raise ValueError(f"moments of the returns are {[count, squares, sizes]}; look for a reward that is not finite")
        return RewardScale(self.count + count, self.squares + squares, self.sizes + sizes)

    @property
    def rms(self) -> float:
        """Root mean square of the returns; 1 where there is nothing to scale: none seen, or all 0 up to rounding."""
        if not self.squares > ROUNDING**2 * self.sizes:
            return 1.0
        return math.sqrt(self.squares / self.count)


def scale_rewards(token_rewards: Tensor, agent_mask: Tensor, scale: RewardScale) -> tuple[Tensor, Tensor]:
    """Divide rewards by the root mean square of the returns of streams.

    Nothing is subtracted: a shift would pay each token, and so the length of the text. All streams share one factor, so that a
    constant mass stays constant and what the task weighs more still counts more. Scale before a KL penalty is added, or its
    coefficient changes its meaning with the rewards.

    Args:
        token_rewards: float (E, T).
        agent_mask: bool (E, T).
        scale: updated with this collection already, so that not even the first one is learned from in its raw size.

    Returns:
        the scaled rewards, float (E, T), 0 where not ``agent_mask``; and what was taken from each episode's sum, float64
        (E,): its mean is an account of the ledger.
    """
    token_rewards = torch.where(agent_mask, token_rewards, 0)
    scaled = token_rewards / scale.rms
    return scaled, token_rewards.double().sum(1) - scaled.double().sum(1)
