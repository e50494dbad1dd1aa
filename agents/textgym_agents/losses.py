"""The losses of PPO over tokens: pure functions, formula and shapes in the docstring.

Left out on purpose: coefficients, schedules and configuration, which are the learner's. ``mask`` is True at agent tokens;
everything else (padding, prompt, tokens of the environment) takes no part in any mean or deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` where ``mask``: sum(x * mask) / sum(mask). Same shapes; a mask with nothing in it is an error."""
    count = mask.sum()
    if count == 0:
        raise ValueError("masked_mean over no token: the mask is False everywhere")
    return torch.where(mask, x, 0).sum() / count


def moments(x: Tensor, mask: Tensor) -> Tensor:
    """Give count, sum and sum of squares of ``x`` where ``mask``, float64 (3,): they add up over processes."""
    kept = torch.where(mask, x, 0).double()
    return torch.stack([mask.sum().double(), kept.sum(), kept.square().sum()])


def whiten(x: Tensor, mask: Tensor, totals: Tensor | None = None) -> Tensor:
    """Shift and scale ``x`` to mean 0 and deviation 1 where ``mask``: (x - mean) / std, 0 elsewhere.

    The deviation is the population's, so one token is no special case. Where it is 0 up to rounding (a constant mass, a
    batch of one) there is nothing to scale and x - mean is returned.

    Args:
        x: float, any shape.
        mask: bool, the same shape.
        totals: ``moments`` added up over all processes; default: those of ``x``.
    """
    count, total, squares = (moments(x, mask) if totals is None else totals).unbind()
    mean = total / count.clamp(min=1)
    std = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    size = (squares / count.clamp(min=1)).sqrt()
    std = torch.where(std > 1e-6 * size, std, 1.0)
    return torch.where(mask, (x - mean) / std, 0).to(x.dtype)


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """The clipped policy loss and what to watch beside it; scalars."""

    loss: Tensor
    """mean of -min(ratio A, clip(ratio) A)."""
    clip_fraction: Tensor
    """Share of tokens whose ratio left the clip range."""
    approx_kl: Tensor
    """Estimate of KL(sampling policy || current policy): mean of (ratio - 1) - log ratio (Schulman, 2020: k3)."""


def ppo_policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_coef: float) -> PolicyLoss:
    """PPO's clipped surrogate per token (Schulman et al., 2017, eq. 7).

    ratio = exp(logprobs - old_logprobs);  loss = -mean(min(ratio A, clip(ratio, 1 - clip_coef, 1 + clip_coef) A)).

    Args:
        logprobs: float (B, T), under the current policy.
        old_logprobs: float (B, T), under the policy that sampled.
        advantages: float (B, T).
        mask: bool (B, T), agent tokens.
        clip_coef: half width of the clip range.
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    ratio = log_ratio.exp()
    surrogate = torch.min(ratio * advantages, ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantages)
    with torch.no_grad():
        clip_fraction = masked_mean(((ratio - 1).abs() > clip_coef).float(), mask)
        approx_kl = masked_mean(ratio - 1 - log_ratio, mask)
    return PolicyLoss(-masked_mean(surrogate, mask), clip_fraction, approx_kl)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None = None) -> Tensor:
    """Half the mean squared error of the values, optionally clipped around the old ones (PPO's reference code).

    loss = 1/2 mean(max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)). All (B, T); ``clip`` None leaves the max out.
    """
    error = (values - returns).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.max(error, (clipped - returns).square())
    return 0.5 * masked_mean(error, mask)


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Per-token reward that keeps the policy near a reference: -kl_coef (log p - log p_ref), 0 where not ``mask``. (B, T).

    Added to a token's reward it belongs to that token's own stream.
    """
    return torch.where(mask, -kl_coef * (logprobs - ref_logprobs), 0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over ``mask``; nan where the returns are constant."""
    kept_values, kept_returns = values[mask].double(), returns[mask].double()
    variance = kept_returns.var(unbiased=False)
    if variance == 0:
        return float("nan")
    return float(1 - (kept_returns - kept_values).var(unbiased=False) / variance)
