"""Sampling one token per row: temperature, top-k, top-p, and the log-probability under what was really sampled from.

Left out on purpose: ``torch.multinomial``, which draws one random number per token of the vocabulary. One uniform number per
row and the inverse of the distribution function do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from textgym_agents.torchscript import TorchScript

_BELOW_1 = 1 - 2**-22  # so that rounding never passes the last token with probability above 0
_BLOCK = 128  # tokens
_LARGE = 2**19  # logits that are drawn from in blocks: more operations, which at 32 x 4,096 cost more than they save
_SCRIPT = """
def draw(logits, shares, overwrite: bool):
    most = logits.amax([-1], True)
    weights = (logits.sub_(most) if overwrite else logits - most).exp_()
    cdf = weights.cumsum(-1)
    total = cdf[:, -1:]
    tokens = torch.searchsorted(cdf, shares * total, right=True)
    chosen = weights.gather(1, tokens.clamp(max=weights.size(1) - 1))
    return tokens.squeeze(1), (chosen / total).log().squeeze(1)
"""  # two halves of the rows may be drawn at once


@dataclass(frozen=True)
class Sampling:
    """From which distribution tokens are sampled."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int | None = None
    """Sample from the k tokens of highest probability only (and those that tie with the last of them); None: from all."""
    top_p: float = 1.0
    """Sample from the fewest most probable tokens that hold this much probability; 1: from all."""

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1, or None to sample from all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    @property
    def truncates(self) -> bool:
        """Whether some tokens are never sampled, so that the distribution is not the tempered model's."""
        return self.top_k is not None or self.top_p < 1


def truncate(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Put -inf where top-k, then top-p (Holtzman et al., 2020) leave a token out. (..., V) -> (..., V).

    The most probable token always stays. Top-p holds of what top-k left, renormalised.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        probs, order = logits.softmax(-1).sort(-1, descending=True)
        beyond = probs.cumsum(-1) - probs >= top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
    return logits


def sample(
    logits: Tensor, uniforms: Tensor, sampling: Sampling, allowed: Tensor | None = None, *, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """Sample by the inverse of the distribution function.

    Args:
        logits: float32 (n, V).
        uniforms: float32 (n,), in [0, 1): one random number per row.
        sampling: the distribution.
        allowed: bool (n, V), the only tokens that there are, temperature, top-k and top-p included; None: all.
        overwrite: ``logits`` may be written over.

    Returns:
        tokens int64 (n,) and logprobs float32 (n,), each under the distribution that it was sampled from. Logits that are not
        finite give the token V, which is none.
    """
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.truncates:
        logits = truncate(logits, sampling.top_k, sampling.top_p)
    shares = uniforms[:, None] * _BELOW_1
    if logits.device.type == "cpu" and logits.numel() < _LARGE and (scripted := _scripted()) is not None:
        return scripted(logits, shares, overwrite)
    most = logits.amax(-1, keepdim=True)
    weights = (logits.sub_(most) if overwrite else logits - most).exp_()
    draw = _draw_in_blocks if weights.numel() >= _LARGE else _draw
    tokens, chosen, total = draw(weights, shares)
    return tokens.squeeze(1), (chosen / total).log().squeeze(1)


@cache
def _scripted() -> TorchScript | None:
    """Give the end of ``sample`` with ``_draw`` as one call; None where torch has no TorchScript."""
    try:
        return TorchScript(_SCRIPT, "draw")
    except (AttributeError, RuntimeError):
        return None


def _draw(weights: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the tokens at ``shares`` (n, 1) of the weights (n, V) before them. Returns tokens, their weights, totals (n, 1)."""
    cdf = weights.cumsum(-1)
    total = cdf[:, -1:]
    tokens = torch.searchsorted(cdf, shares * total, right=True)
    return tokens, weights.gather(1, tokens.clamp(max=weights.shape[1] - 1)), total


def _draw_in_blocks(weights: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same: first the block of tokens, then the token in it. A running sum waits for each addend, a block's does not."""
    size, whole = weights.shape[1], weights.shape[1] // _BLOCK * _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1)
    if whole < size:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)
    ends = sums.cumsum(-1)
    total = ends[:, -1:]
    target = shares * total
    block = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)
    # Beyond the last token it comes again: as good a choice, where rounding goes past a block's end.
    places = (block * _BLOCK + torch.arange(_BLOCK, device=weights.device)).clamp_(max=size - 1)
    inside = weights.gather(1, places)
    cdf = inside.cumsum(-1)
    last = cdf[:, -1:]  # above 0; a block's sum in another order may be more
    rest = torch.minimum(target - pad(ends, (1, 0)).gather(1, block), last.nextafter(torch.zeros_like(last)))
    at = torch.searchsorted(cdf, rest, right=True).clamp_(max=_BLOCK - 1)
    return torch.where(total.isnan(), size, places.gather(1, at)), inside.gather(1, at), total
