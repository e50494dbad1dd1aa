"""The losses of implicit Q-learning over tokens: pure functions, formula and shapes in the docstring.

Left out on purpose: networks, target copies and coefficients, which are the learner's. K is the number of agent tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def stream_successors(streams: Tensor, agent_mask: Tensor) -> Tensor:
    """Find the next agent token of each agent token's own stream. Int64 (E, T); -1 where there is none.

    Args:
        streams: int (E, T); read at agent tokens only.
        agent_mask: bool (E, T).
    """
    kinds, index = torch.unique(streams.masked_fill(~agent_mask, -1), return_inverse=True)
    ahead = torch.full((len(streams), len(kinds)), -1, dtype=torch.int64, device=streams.device)
    out = torch.full_like(index, -1)
    for t in range(streams.shape[1] - 1, -1, -1):
        own = index[:, t : t + 1]
        out[:, t : t + 1] = ahead.gather(1, own)
        ahead.scatter_(1, own, torch.full_like(own, t))
    return torch.where(agent_mask, out, -1)


def q_targets(
    token_rewards: Tensor,
    values: Tensor,
    streams: Tensor,
    agent_mask: Tensor,
    final_values: Tensor,
    truncated: Tensor,
    gamma: float,
) -> Tensor:
    """One step of Bellman inside each stream: y_t = r_t + gamma V(t'), t' the next agent token of t's stream.

    The last token of a stream has V(t') = 0; on truncation, and only for the stream of the episode's last agent token, it is
    V(final observation), as in ``stream_gae``.

    Args:
        token_rewards: float (E, T).
        values: float (E, T), V before each token.
        streams: int (E, T).
        agent_mask: bool (E, T).
        final_values: float (E,).
        truncated: bool (E,).
        gamma: discount per agent token of the stream.

    Returns:
        float (E, T), 0 where not ``agent_mask``.
    """
    following = stream_successors(streams, agent_mask)
    ahead = torch.where(following >= 0, values.gather(1, following.clamp(min=0)), 0)
    last = (agent_mask * torch.arange(1, streams.shape[1] + 1, device=streams.device)).argmax(1, keepdim=True)
    ahead = ahead.scatter_add(1, last, (final_values * truncated)[:, None].nan_to_num())
    return torch.where(agent_mask, token_rewards + gamma * ahead, 0)


def expectile_loss(values: Tensor, q: Tensor, expectile: float) -> Tensor:
    """Draw V towards the upper expectile of Q over the data's actions (Kostrikov et al., 2022, eq. 5): scalar.

    mean of |expectile - 1(u < 0)| u^2 with u = q - values. At .5 it is half the squared error; towards 1, V tends to the best
    Q that the data holds. No gradient flows into ``q``.

    Args:
        values: float (K,).
        q: float (K,), of the tokens that were written.
        expectile: in (0, 1).
    """
    u = q.detach() - values
    return (torch.where(u < 0, 1 - expectile, expectile) * u.square()).mean()


def conservative_loss(q: Tensor, tokens: Tensor) -> Tensor:
    """Keep Q of what was never written below Q of what was (CQL, Kumar et al., 2020; as Snell et al., 2023, use it): scalar.

    mean of logsumexp_a Q(s, a) - Q(s, a_t): a cross-entropy with Q as logits.

    Args:
        q: float (K, V).
        tokens: int64 (K,), what was written.
    """
    return cross_entropy(q, tokens)
