"""Baselines without a critic: from the other members of a group, or from a whole collection; pure functions of tensors.

Left out on purpose: a model, and which of them an agent uses. A *unit* is what is compared: the return of a stream of an
episode, or the reward-to-go of its n-th token; units of one kind are compared over the members of a group, which share
their prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textgym_agents.normalise import ROUNDING
from textgym_agents.returns import stream_gae


def rewards_to_go(token_rewards: Tensor, streams: Tensor, agent_mask: Tensor) -> Tensor:
    """Sum the rewards from each token on, inside its own stream, without discount. Float (E, T), 0 where not ``agent_mask``.

    G_t = r_t + G_t', t' the next agent token of the stream: ``stream_gae`` with values of 0.
    """
    zeros = torch.zeros_like(token_rewards)
    cut = torch.zeros(len(token_rewards), dtype=torch.bool, device=token_rewards.device)
    return stream_gae(token_rewards, zeros, streams, agent_mask, zeros[:, 0], cut)[0]


def stream_means(x: Tensor, streams: Tensor, agent_mask: Tensor) -> Tensor:
    """Give each agent token the mean of ``x`` over all agent tokens of its stream. Float (E, T), 0 elsewhere."""
    _, index = torch.unique(streams[agent_mask], return_inverse=True)
    kept = x[agent_mask]
    sums = kept.new_zeros(int(index.max()) + 1 if len(index) else 0).index_add_(0, index, kept)
    means = sums / index.bincount(minlength=len(sums))
    return torch.zeros_like(x).masked_scatter(agent_mask, means[index])


def stream_sums(token_rewards: Tensor, streams: Tensor, agent_mask: Tensor) -> Tensor:
    """Give each agent token the whole return of its stream in its episode. Float (E, T), 0 elsewhere."""
    first = rewards_to_go(token_rewards, streams, agent_mask)
    kinds, index = torch.unique(streams.masked_fill(~agent_mask, -1), return_inverse=True)
    sums = token_rewards.new_zeros(len(token_rewards), len(kinds))
    for t in range(streams.shape[1] - 1, -1, -1):  # the reward-to-go of a stream's first token is written last
        sums.scatter_(1, index[:, t : t + 1], first[:, t : t + 1])
    return torch.where(agent_mask, sums.gather(1, index), 0)


def places(streams: Tensor, agent_mask: Tensor) -> Tensor:
    """Number the agent tokens of each stream of each episode from 0. Int64 (E, T), -1 where not ``agent_mask``."""
    out = torch.full_like(streams, -1)
    for stream in streams[agent_mask].unique().tolist():
        own = agent_mask & (streams == stream)
        out = torch.where(own, own.cumsum(1) - 1, out)
    return out


def group_statistics(x: Tensor, keys: Tensor, agent_mask: Tensor, group_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare a unit with its like in the other episodes of its group.

    Args:
        x: float (E, T); tokens of one episode that share a key share x: the value of the unit.
        keys: int (E, T), the kind of unit of each token, at least 0; read at agent tokens only.
        agent_mask: bool (E, T).
        group_id: int (E,), which group each episode belongs to.

    Returns:
        count, sum and sum of squares over the group's episodes *that have* such a unit, this one among them: float64 (E, T)
        each, 0 where not ``agent_mask``.
    """
    rows = torch.arange(len(x), device=x.device)[:, None].expand_as(keys)
    units = torch.stack([rows[agent_mask], keys[agent_mask]])
    units, of_token = torch.unique(units, dim=1, return_inverse=True)
    values = x.new_zeros(units.shape[1], dtype=torch.float64)
    values[of_token] = x[agent_mask].double()
    _, alike = torch.unique(torch.stack([group_id[units[0]], units[1]]), dim=1, return_inverse=True)
    size = int(alike.max()) + 1 if len(alike) else 0
    totals = (values.new_zeros(size).index_add_(0, alike, v) for v in (torch.ones_like(values), values, values.square()))
    blank = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    count, total, squares = (blank.masked_scatter(agent_mask, each[alike][of_token]) for each in totals)
    return count, total, squares


def leave_one_out(x: Tensor, keys: Tensor, agent_mask: Tensor, group_id: Tensor) -> tuple[Tensor, Tensor]:
    """RLOO's advantage: a unit's value less the mean of the *other* members' (Kool et al., 2019; Ahmadian et al., 2024).

    A_i = x_i - 1 / (n - 1) sum_{j != i} x_j over the n members of the group that have such a unit. What the others wrote does
    not depend on what this one wrote, so the baseline adds no bias, whichever of them have the unit. A unit that no other
    member has keeps a baseline of 0: no bias either, but more noise.

    Args:
        x: as in ``group_statistics``, and so are the others.
        keys: int (E, T).
        agent_mask: bool (E, T).
        group_id: int (E,).

    Returns:
        the advantages, of the type of x, and bool (E, T), which agent tokens have no companion.
    """
    count, total, _ = group_statistics(x, keys, agent_mask, group_id)
    others = (total - x.double()) / (count - 1).clamp(min=1)
    alone = agent_mask & (count < 2)
    advantages = x.double() - torch.where(alone, 0.0, others)
    return torch.where(agent_mask, advantages, 0).to(x.dtype), alone


def standardise(x: Tensor, keys: Tensor, agent_mask: Tensor, group_id: Tensor) -> tuple[Tensor, Tensor]:
    """GRPO's advantage: (x_i - mean) / std over the group, this one among them (Shao et al., 2024, section 4.1.2).

    The deviation is the population's. Where it is 0 up to rounding (all alike, or one member alone) the advantage is 0:
    there is nothing to prefer. Arguments and results as in ``leave_one_out``.
    """
    count, total, squares = group_statistics(x, keys, agent_mask, group_id)
    mean = total / count.clamp(min=1)
    mean_square = squares / count.clamp(min=1)
    std = (mean_square - mean.square()).clamp(min=0).sqrt()
    flat = std <= ROUNDING * mean_square.sqrt()
    scores = torch.where(flat, 0.0, (x.double() - mean) / torch.where(flat, 1.0, std))
    return torch.where(agent_mask, scores, 0).to(x.dtype), agent_mask & (count < 2)


def best_of_group(x: Tensor, keys: Tensor, agent_mask: Tensor, group_id: Tensor, episode_id: Tensor) -> Tensor:
    """Say which tokens belong to the best unit of their kind in their group. Bool (E, T).

    Of several best ones the first in the order of ``episode_id`` is taken. Where all members that have the unit are alike
    (or there is one alone) none is best.
    """
    count, total, squares = group_statistics(x, keys, agent_mask, group_id)
    mean = total / count.clamp(min=1)
    spread = squares / count.clamp(min=1) - mean.square() > ROUNDING**2 * squares / count.clamp(min=1)
    best = torch.zeros_like(agent_mask)
    for group in group_id.unique().tolist():
        rows = (group_id == group).nonzero().flatten()
        rows = rows[episode_id[rows].argsort()]
        for key in keys[rows][agent_mask[rows]].unique().tolist():
            own = (keys[rows] == key) & agent_mask[rows]
            value = torch.where(own, x[rows], -torch.inf).amax(1)
            row = rows[int(value.argmax())]
            best[row] |= (keys[row] == key) & agent_mask[row]
    return best & spread
