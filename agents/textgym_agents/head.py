"""Log-probs and entropies of tokens from hidden states, without the logits of all tokens in memory at once.

Left out on purpose: everything before the hidden states, and heads that are more than one linear layer of plain weights
(adapters, sharded weights, scaled or capped logits): the model then runs its own head in checkpointed chunks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CHUNK_ELEMENTS = 2**22  # logits of one chunk, in elements: 16 MiB in float32


class Allowed(NamedTuple):
    """Which tokens a task allowed at each of K tokens, or of (B, T): a number each, into the task's masks."""

    rows: Tensor
    """bool (M, V), the masks."""
    numbers: Tensor
    """int64 (K,) or (B, T)."""

    def forbidden(self) -> Tensor:
        """Give the tokens that are left out, bool (K, V)."""
        return ~self.rows[self.numbers]


def is_plain(head: Any) -> bool:
    """Tell whether a head is one linear layer whose weights may be read directly: no adapter, shard, hook or own forward."""
    return (
        type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and "forward" not in vars(head)
        and not head._forward_hooks
        and not head._forward_pre_hooks
    )


def working_dtype(weights: Tensor) -> torch.dtype:
    """Give the dtype in which products with ``weights`` are taken: autocast's where it is on, else their own."""
    kind = weights.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weights.dtype


def token_logprobs(
    states: Tensor,
    head: nn.Linear,
    tokens: Tensor,
    vocab_size: int,
    temperature: float = 1.0,
    allowed: Allowed | None = None,
) -> tuple[Tensor, Tensor]:
    """Give log-probability and entropy of K tokens under softmax(head(states)[:V] / temperature), in float32.

    Forward and backward both go chunk by chunk and the backward pass computes the logits again, so that at most
    ``CHUNK_ELEMENTS`` logits (or one token's) are held. Where all logits are no more than that, their probabilities are kept.
    For log-prob l of token a, entropy H and incoming gradients g, h the gradient of the logits is::

        (g ([j = a] - p_j) - h p_j (log p_j + H)) / temperature

    With action masks the softmax runs over the allowed tokens alone; the logits of the others get gradient 0.

    Args:
        states: float (K, hidden), the state before each token.
        head: plain, see ``is_plain``. Its rows beyond V take no part and get gradient 0.
        tokens: int64 (K,), below V.
        vocab_size: V.
        temperature: of the policy that sampled.
        allowed: the tokens that each could have been, (K,); None: all.

    Returns:
        logprobs and entropy, float32 (K,) each. An entropy that no loss uses costs nothing in the backward pass.
    """
    # Autocast is not active in backward passes, so the precision is settled here, for both.
    states = states.to(working_dtype(head.weight))
    with torch.autocast(states.device.type, enabled=False):
        return _TokenLogprobs.apply(states, head.weight, head.bias, tokens, vocab_size, temperature, *(allowed or (None, None)))


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        vocab_size: int,
        temperature: float,
        rows: Tensor | None = None,
        numbers: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        size = max(1, CHUNK_ELEMENTS // vocab_size)
        log_probs, entropies = [], []
        probs = None
        for start in range(0, len(states), size):
            at = slice(start, start + size)
            table = _log_softmax(states[at], weight, bias, vocab_size, temperature, _forbidden(rows, numbers, at))
            log_probs.append(table.gather(-1, tokens[at, None]).squeeze(-1))
            probs = table.exp()
            if rows is not None:
                table.clamp_(min=torch.finfo(table.dtype).min)  # 0 log 0 is 0
            entropies.append(-table.mul_(probs).sum(-1))
        entropy = torch.cat(entropies)
        keep = len(states) <= size and any(ctx.needs_input_grad)
        ctx.save_for_backward(states, weight, bias, tokens, rows, numbers, entropy, probs if keep else None)
        ctx.vocab_size, ctx.temperature, ctx.size = vocab_size, temperature, size
        ctx.set_materialize_grads(False)
        return torch.cat(log_probs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        states, weight, bias, tokens, rows, numbers, entropy, kept = ctx.saved_tensors
        grad_logprobs, grad_entropy = grads
        if grad_entropy is not None and grad_entropy.device.type == "cpu" and not grad_entropy.any():
            grad_entropy = None  # a loss with an entropy coefficient of 0
        if grad_logprobs is None:
            if grad_entropy is None:
                return (None,) * 8
            grad_logprobs = torch.zeros_like(grad_entropy)
        # Sums over chunks are kept in float32 where the weights are coarser.
        grad_states = torch.empty_like(states)
        grad_weight = torch.zeros_like(weight, dtype=entropy.dtype)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=entropy.dtype)
        for start in range(0, len(states), ctx.size):
            at = slice(start, start + ctx.size)
            probs = kept
            if probs is None:
                forbidden = _forbidden(rows, numbers, at)
                probs = _log_softmax(states[at], weight, bias, ctx.vocab_size, ctx.temperature, forbidden).exp_()
            chosen = grad_logprobs[at, None]
            if grad_entropy is None:
                grad = probs * -chosen
            else:
                grad = probs * -(chosen + grad_entropy[at, None] * entropy[at, None])
                grad.addcmul_(torch.special.entr(probs), grad_entropy[at, None])  # -p log p, 0 at p = 0
            grad.scatter_add_(1, tokens[at, None], chosen)
            grad /= ctx.temperature
            if grad_bias is not None:
                grad_bias[: ctx.vocab_size] += grad.sum(0)
            grad = grad.to(states.dtype)
            torch.matmul(grad, weight[: ctx.vocab_size].to(states.dtype), out=grad_states[at])
            _add_product(grad_weight[: ctx.vocab_size], grad.t(), states[at])
        return (
            grad_states,
            grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            *(None,) * 5,
        )


def _forbidden(rows: Tensor | None, numbers: Tensor | None, at: slice) -> Tensor | None:
    return None if rows is None or numbers is None else Allowed(rows, numbers[at]).forbidden()


def _log_softmax(
    states: Tensor, weight: Tensor, bias: Tensor | None, vocab_size: int, temperature: float, forbidden: Tensor | None
) -> Tensor:
    """Give log-probs of the V tokens, in float32 at least, -inf where ``forbidden``. (k, hidden) -> (k, V)."""
    bias = None if bias is None else bias[:vocab_size].to(states.dtype)
    logits = nn.functional.linear(states, weight[:vocab_size].to(states.dtype), bias)
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    if forbidden is not None:
        logits.masked_fill_(forbidden, -torch.inf)
    return logits.div_(temperature).log_softmax(-1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
