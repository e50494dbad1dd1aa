"""The distance to a reference policy: estimators per token, as a reward, as a loss, and a coefficient that adapts.

Left out on purpose: the reference model, and which of the two, reward or loss, a learner uses. ``mask`` is True at agent
tokens; everything else takes no part.

With p the policy, q the reference, d = log p(x) - log q(x) of a token x that *p sampled* (Schulman, 2020)::

    estimator                  value E_p[k]    as a loss: E_p[grad k]   as a reward: E_p[k grad log p]
    k1 = d                     KL(p||q)        0                        grad KL(p||q)
    k2 = d^2 / 2               E_p[d^2] / 2    grad KL(p||q)            grad E_p[k2] - grad KL(p||q)
    k3 = exp(-d) - 1 + d       KL(p||q)        grad KL(q||p)            grad KL(p||q) - grad KL(q||p)

A loss differentiates through the estimator while the samples stay; a reward multiplies grad log p, like any reward. The
table follows from E_p[grad log p] = 0 and grad E_p[k] = E_p[k grad log p] + E_p[grad k]. So an estimator with a good
*value* need not have a good *gradient*:

* As a loss k1 teaches nothing but noise; k2 has the gradient of KL(p||q), the same that a k1 reward has; k3 has that of the
  other direction, KL(q||p), which makes p cover q.
* As a reward only k1 is right at its own token. Near the reference KL(p||q), KL(q||p) and E_p[d^2] / 2 agree to second
  order, so that what k2 and k3 give there cancels; far from it, k3 pays for leaving what q covers. Earlier tokens of the
  stream see the value alone, for which k1 and k3 are both right.

A loss holds each token's prefix fixed; a reward also teaches a token what its successors in the stream will pay. The table
is exact for samples of p itself, which are those of an update's first step; later ones lean on the clip that keeps p near.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from textgym_agents.losses import masked_mean

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, kind: Estimator) -> Tensor:
    """Estimate KL(policy || reference) at each token that the policy sampled; any shape, see the table above.

    k1 is unbiased, of either sign, and varies most; k2 is biased, never negative; k3 is unbiased and never negative.

    Raises:
        ValueError: ``kind`` is none of k1, k2, k3.
    """
    difference = logprobs - ref_logprobs
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * difference.square()
    if kind == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"the KL estimator is {kind!r}; it must be k1, k2 or k3")


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float, kind: Estimator = "k1") -> Tensor:
    """Per-token reward that keeps the policy near a reference: -kl_coef * estimate, 0 where not ``mask``. (B, T).

    Added to a token's reward it belongs to that token's own stream. k1 is the default because it alone has the gradient of
    KL(policy || reference) at its own token (the table above).
    """
    return torch.where(mask, -kl_coef * kl_estimate(logprobs, ref_logprobs, kind), 0)


def kl_loss(
    logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kind: Estimator, count: float | Tensor | None = None
) -> Tensor:
    """Mean estimate over ``mask``, to be differentiated; scalar, without a coefficient.

    Args:
        logprobs: float (B, T), under the current policy.
        ref_logprobs: float (B, T), under the reference.
        mask: bool (B, T), agent tokens.
        kind: k2 descends KL(policy || reference), k3 KL(reference || policy).
        count: what to divide by, see ``masked_mean``.

    Raises:
        ValueError: ``kind`` is k1 or unknown, or as ``masked_mean``.
    """
    if kind == "k1":
        raise ValueError(
            "k1 as a loss has a gradient of expectation 0: E[grad log p] = 0 whatever the reference is, so it would teach "
            "noise; use k2 for KL(policy || reference), k3 for KL(reference || policy), or k1 as a reward (kl_penalty)"
        )
    # Masked before the estimate: 0 times what stands in the padding may be nan, in the gradient as well.
    logprobs, ref_logprobs = torch.where(mask, logprobs, 0), torch.where(mask, ref_logprobs, 0)
    return masked_mean(kl_estimate(logprobs, ref_logprobs, kind), mask, count)


def adapt_kl_coef(kl_coef: float, kl: float, *, target: float, episodes: int, horizon: float) -> float:
    """Move the coefficient of the penalty so that the KL comes near ``target`` (Ziegler et al., 2019).

    error = clip(kl / target - 1, -.2, .2);  kl_coef * (1 + error * episodes / horizon). The coefficient is the whole state.

    Args:
        kl_coef: the coefficient now, above 0.
        kl: what was measured with it, over all processes, in the unit of ``target`` (nats per episode, or per token).
        target: the KL to hold, above 0.
        episodes: how many episodes, of all processes, the measurement is of.
        horizon: episodes over which an error of .2 moves the coefficient by a fifth; more than a fifth of ``episodes``.

    Raises:
        ValueError: an argument is out of its range, or ``kl`` is not finite.
    """
    if not (kl_coef > 0 and math.isfinite(kl_coef)):
        raise ValueError(f"kl_coef is {kl_coef}; it must be above 0 and finite: a coefficient of 0 cannot grow")
    if not target > 0:
        raise ValueError(f"target is {target}; it must be above 0")
    if not horizon > 0.2 * episodes:
        raise ValueError(
            f"horizon is {horizon} for {episodes} episodes a time; it must be above {0.2 * episodes:g}, "
            "or one step could bring the coefficient to 0 or below"
        )
    if not math.isfinite(kl):
        raise ValueError(f"the measured KL is {kl}; it must be finite")
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)
