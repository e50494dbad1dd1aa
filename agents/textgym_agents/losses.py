"""The losses of PPO over tokens: pure functions, formula and shapes in the docstring.

Left out on purpose: coefficients, schedules and configuration, which are the learner's, the KL to a reference (``kl``) and
whatever is scaled before it is learned from (``normalise``). ``mask`` is True at agent tokens; everything else (padding,
prompt, tokens of the environment) takes no part in any mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from textgym_agents.normalise import ROUNDING


def masked_mean(x: Tensor, mask: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Mean of ``x`` where ``mask``: sum(x * mask) / count.

    Losses of micro-batches add up to the minibatch's, and so do their gradients, if each is divided by the *minibatch's* agent
    tokens; their own means would make a token of a short text weigh more. Then a micro-batch without agent tokens gives 0.

    Args:
        x: float, any shape.
        mask: bool, the same shape.
        count: a number or 0-d tensor to divide by; default: ``mask.sum()``. Where gradients are averaged over processes (DDP):
            the agent tokens of all processes divided by the number of processes.

    Raises:
        ValueError: ``mask`` is False everywhere and no ``count`` is given, or ``count`` is not above 0.
    """
    if count is None:
        count = mask.sum()
        if count == 0:
            raise ValueError("masked_mean over no token: the mask is False everywhere; give count if this is a micro-batch")
    elif not count > 0:
        raise ValueError(f"count is {count}; it must be above 0: the agent tokens of the whole minibatch")
    return torch.where(mask, x, 0).sum() / count


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """The clipped policy loss and what to watch beside it; scalars, means over the same tokens as the loss."""

    loss: Tensor
    """mean of -weight min(ratio A, clip(ratio) A)."""
    clip_fraction: Tensor
    """Share of tokens whose ratio left the clip range."""
    approx_kl: Tensor
    """Estimate of KL(old policy || current policy): mean of (ratio - 1) - log ratio (Schulman, 2020: k3)."""
    dual_clip_fraction: Tensor
    """Share of tokens whose loss met the bound of the dual clip; they have no gradient."""


def ppo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
    count: float | Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped surrogate per token (Schulman et al., 2017, eq. 7).

    ratio = exp(logprobs - old_logprobs);  s = min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A);  where A < 0 and
    ``dual_clip`` c is given, s = max(s, c A) (Ye et al., 2020, eq. 5);  loss = -mean(weight s).

    ``clip_high`` above ``clip_low`` lets tokens of small probability gain more before they are clipped ("clip-higher", Yu et
    al., 2025: DAPO). For A < 0 PPO's own clip bounds nothing from above: a token that became ten times as likely
    has ten times the gradient. The dual clip ends that.

    Args:
        logprobs: float (B, T), under the current policy.
        old_logprobs: float (B, T), under the policy as it was when the update began.
        advantages: float (B, T).
        mask: bool (B, T), agent tokens.
        clip_low: how far the ratio is trusted below 1.
        clip_high: how far the ratio is trusted above 1.
        dual_clip: bound of the loss where A < 0, in units of -A; above 1. None: no bound.
        weights: float (B, T), ``importance_weights``; None: 1. No gradient flows through them.
        count: what to divide by, see ``masked_mean``.

    Raises:
        ValueError: a clip is negative, ``dual_clip`` not above 1, or as ``masked_mean``.
    """
    if not (clip_low >= 0 and clip_high >= 0):
        raise ValueError(f"clip_low is {clip_low} and clip_high {clip_high}; both must be at least 0")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip is {dual_clip}; it must be above 1 (3 is usual), or None")
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    ratio = log_ratio.exp()
    surrogate = torch.min(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    bound = (advantages < 0) & (ratio > (math.inf if dual_clip is None else dual_clip))
    if dual_clip is not None:
        surrogate = torch.where(bound, dual_clip * advantages, surrogate)
    if weights is not None:
        surrogate = weights.detach() * surrogate
    with torch.no_grad():
        clipped = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
        clip_fraction = masked_mean(clipped.float(), mask, count)
        dual_clip_fraction = masked_mean(bound.float(), mask, count)
        approx_kl = masked_mean(ratio - 1 - log_ratio, mask, count)
    return PolicyLoss(-masked_mean(surrogate, mask, count), clip_fraction, approx_kl, dual_clip_fraction)


def importance_weights(old_logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Weights for tokens that an older policy sampled: min(cap, pi_old / pi_behaviour), 1 where not ``mask``; no gradient.

    Decoupled PPO (Hilton et al., 2021; Fu et al., 2025: AReaL): the clip range is laid around pi_old, the policy as the update
    began, and the weight says how much a token that pi_behaviour sampled counts as one of pi_old. For tokens of the
    current policy it is 1.

    The truncation (Ionides, 2008) bounds the weights' variance by cap^2 and costs a bias: with w the whole ratio,
    E_behaviour[min(cap, w) f] = E_old[min(1, cap / w) f], so a token that has become more than ``cap`` times as likely
    counts less than it should, and every other one in full. A second bias is there at any ``cap``: the weight is the
    token's own, while the prefix before it and what was written after it are still those of pi_behaviour.

    Args:
        old_logprobs: float (B, T), under the policy as it was when the update began.
        behaviour_logprobs: float (B, T), under the policy that sampled each token.
        mask: bool (B, T), agent tokens.
        cap: largest weight, at least 1; inf does not truncate.

    Raises:
        ValueError: ``cap`` is below 1, or a log-prob of an agent token is not finite.
    """
    if not cap >= 1:
        raise ValueError(
            f"cap is {cap}; it must be at least 1: below, it would shrink the tokens of the current policy as well"
        )
    log_ratio = torch.where(mask, old_logprobs - behaviour_logprobs, 0).detach()
    if not torch.isfinite(log_ratio).all():
        row, token = (~torch.isfinite(log_ratio)).nonzero()[0].tolist()
        raise ValueError(
            f"old_logprobs - behaviour_logprobs of row {row}, token {token} is {log_ratio[row, token].item()}; a sampled token "
            "has a probability above 0: look whether both were computed over the same allowed actions"
        )
    return log_ratio.exp().clamp(max=cap)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None = None,
    count: float | Tensor | None = None,
) -> Tensor:
    """Half the mean squared error of the values, optionally clipped around the old ones (PPO's reference code).

    loss = 1/2 mean(max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)). All (B, T); ``clip`` None leaves the max out.
    ``count`` is what to divide by, see ``masked_mean``.
    """
    # Masked before it is squared: 0 times what stands in the padding may be nan, in the gradient as well.
    values, old_values, returns = (torch.where(mask, x, 0) for x in (values, old_values, returns))
    error = (values - returns).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.max(error, (clipped - returns).square())
    return 0.5 * masked_mean(error, mask, count)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over ``mask``; nan where the returns are constant up to rounding."""
    kept_values, kept_returns = values[mask].double(), returns[mask].double()
    variance = kept_returns.var(unbiased=False)
    if not variance > ROUNDING**2 * kept_returns.square().mean():
        return float("nan")
    return float(1 - (kept_returns - kept_values).var(unbiased=False) / variance)
