"""Advantages and returns per stream: pure functions of tensors.

Left out on purpose: which rewards go in (that is the learner's), and any batching over time. The recursion is the product;
it is written once, in the docstring and below it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def stream_gae(
    token_rewards: Tensor,
    values: Tensor,
    streams: Tensor,
    agent_mask: Tensor,
    final_values: Tensor,
    truncated: Tensor,
    *,
    gamma: float = 1.0,
    gae_lambda: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation that stays inside each stream.

    For agent token t of stream k, the successor t' is the next agent token of the *same* stream, whatever stands between::

        delta_t = r_t + gamma V(t') - V(t)
        A_t     = delta_t + gamma gae_lambda A_t'

    The last token of a stream has successor value 0; on truncation, and only for the stream of the episode's last agent
    token, it is V(final observation). With one stream this is ordinary GAE (Schulman et al., 2016), exactly. Neither gamma
    nor lambda decays across tokens of the environment or of other streams.

    Args:
        token_rewards: float (E, T).
        values: float (E, T), V before each token.
        streams: int (E, T); read at agent tokens only.
        agent_mask: bool (E, T).
        final_values: float (E,), V of the final observation; read where ``truncated`` only.
        truncated: bool (E,).
        gamma: discount per agent token of the stream.
        gae_lambda: 1 makes the advantage the stream's reward-to-go minus V(t), unbiased whatever V is.

    Returns:
        advantages and returns (advantages + values), float (E, T) each, 0 where not ``agent_mask``.

    Raises:
        ValueError: the shapes do not fit, or a reward or value at an agent token is not finite (names the episode's row).
    """
    shape = token_rewards.shape
    for name, tensor, expected in (
        ("values", values, shape),
        ("streams", streams, shape),
        ("agent_mask", agent_mask, shape),
        ("final_values", final_values, shape[:1]),
        ("truncated", truncated, shape[:1]),
    ):
        if tensor.shape != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected)}, as token_rewards")
    _check_finite("token_rewards", token_rewards.masked_fill(~agent_mask, 0))
    _check_finite("values", values.masked_fill(~agent_mask, 0))
    _check_finite("final_values", final_values.masked_fill(~truncated, 0)[:, None])

    dtype = torch.promote_types(torch.promote_types(token_rewards.dtype, values.dtype), torch.float32)
    token_rewards, values, final_values = token_rewards.to(dtype), values.to(dtype), final_values.to(dtype)
    # Whatever is not the agent's is a stream of its own, -1, which no agent token ever reads.
    kinds, index = torch.unique(streams.masked_fill(~agent_mask, -1), return_inverse=True)
    next_value = values.new_zeros(shape[0], len(kinds))  # V(t') of each stream, filled from the last token backwards
    next_advantage = torch.zeros_like(next_value)
    last = (agent_mask * torch.arange(1, shape[1] + 1, device=values.device)).argmax(1, keepdim=True)
    next_value.scatter_(1, index.gather(1, last), (final_values * truncated)[:, None].nan_to_num())

    advantages = torch.zeros_like(values)
    for t in range(shape[1] - 1, -1, -1):
        stream, value = index[:, t : t + 1], values[:, t : t + 1]
        delta = token_rewards[:, t : t + 1] + gamma * next_value.gather(1, stream) - value
        advantage = delta + gamma * gae_lambda * next_advantage.gather(1, stream)
        next_value.scatter_(1, stream, value)
        next_advantage.scatter_(1, stream, advantage)
        advantages[:, t : t + 1] = advantage
    advantages = torch.where(agent_mask, advantages, 0)
    return advantages, torch.where(agent_mask, advantages + values, 0)


def whole_stream_returns(
    token_rewards: Tensor,
    values: Tensor,
    streams: Tensor,
    agent_mask: Tensor,
    final_values: Tensor,
    truncated: Tensor,
) -> tuple[Tensor, Tensor]:
    """Give every token what its whole stream earned, before it and after it: for rewards that were booked too early.

    For agent token t of stream k, with the sum over all agent tokens of the stream::

        G_t = sum_s r_s (+ V(final observation) where truncated, in the stream of the last agent token)
        A_t = G_t - V(t)

    What was earned before t does not depend on token t, so its expectation only shifts the baseline; what an assigner that is
    not causal booked there of token t's own doing is kept. Undiscounted. Arguments, errors and shapes as ``stream_gae``.

    Returns:
        advantages and returns G, float (E, T) each, 0 where not ``agent_mask``.
    """
    blank = torch.zeros_like(values)
    _, to_go = stream_gae(token_rewards, blank, streams, agent_mask, final_values, truncated)
    _check_finite("values", values.masked_fill(~agent_mask, 0))
    earned = token_rewards.to(to_go.dtype).masked_fill(~agent_mask, 0)
    returns = torch.zeros_like(to_go)
    for stream in streams[agent_mask].unique():
        mine = agent_mask & (streams == stream)
        before = (earned * mine).cumsum(1) - earned
        returns = torch.where(mine, before + to_go, returns)
    return torch.where(agent_mask, returns - values, 0), returns


def _check_finite(name: str, tensor: Tensor) -> None:
    bad = ~torch.isfinite(tensor).all(1)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"{name} of row {row} of the collection are not finite: {tensor[row].tolist()}")
