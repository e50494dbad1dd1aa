"""Which language models can be used, found out at construction: sizes, layer kinds, and a probe of the forward pass.

Left out on purpose: a list of model names. A model is supported if its own forward pass says so.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textgym_agents.masks import layer_windows
from textgym_agents.slots import SlotCache


class SplitModel(Protocol):
    """A language model that can be run without its head, and cached in slots."""

    lm: PreTrainedModel
    vocab_size: int
    context_length: int

    def slot_cache(self, num_rows: int) -> SlotCache:
        """Make an empty cache."""
        ...

    def hidden(self, ids: Tensor, positions: Tensor, mask: Any = None, cache: SlotCache | None = None) -> Tensor:
        """Run it without its head."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Run its head."""
        ...


def head_of(lm: PreTrainedModel) -> Any:
    """Give the linear layer from hidden states to logits."""
    head = lm.get_output_embeddings()
    if head is None:
        raise ValueError(f"{type(lm).__name__} has no language model head; give a causal language model (AutoModelForCausalLM)")
    return head


def check_fit(lm: PreTrainedModel, vocab_size: int, context_length: int) -> None:
    """Raise ValueError where the model is smaller than the tokenizer or the context, or of a kind that is not supported."""
    name = type(lm).__name__
    embeddings: Any = lm.get_input_embeddings()
    for what, size in (("logits", head_of(lm).weight.shape[0]), ("embeddings", embeddings.weight.shape[0])):
        if size < vocab_size:
            raise ValueError(
                f"{name} has {size} {what} but the tokenizer has {vocab_size} tokens; use the tokenizer that the model was "
                "trained with, or lm.resize_token_embeddings"
            )
    config = lm.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None)
    if room is not None and room < context_length:
        raise ValueError(
            f"{name} has {room} positions but the environment's context_length is {context_length}; lower "
            "max_prompt_tokens or max_new_tokens"
        )
    try:
        layer_windows(config, context_length)
    except ValueError as error:
        raise ValueError(f"{name} is not supported: {error}") from error
    if lm.config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            f"{name} runs attention as {lm.config._attn_implementation!r}; the slot cache needs 'sdpa' or 'eager', which "
            "take a mask per row: from_pretrained(..., attn_implementation='sdpa')"
        )


@torch.no_grad()
def probe(model: SplitModel) -> None:
    """Compare the split forward pass and the slot cache with the model's own on a few tokens; refuse where they differ."""
    length = min(4, model.context_length)
    ids = (torch.arange(2 * length, device=model.lm.device) % model.vocab_size).reshape(2, length)
    expected = model.lm(input_ids=ids, use_cache=False).logits[..., : model.vocab_size].float()
    positions = torch.arange(length, device=ids.device).expand_as(ids)
    cache = model.slot_cache(2)
    one_by_one = []
    for column in range(length):
        at = positions[:, column : column + 1]
        mask = cache.aim(None, at, column + 1, model.lm.dtype)
        one_by_one.append(model.logits(model.hidden(ids[:, column : column + 1], at, mask, cache)))
    tolerance = (0.05 if model.lm.dtype in (torch.float16, torch.bfloat16) else 1e-3) * max(1.0, float(expected.abs().max()))
    for what, got in (
        ("its head does more than one linear layer", model.logits(model.hidden(ids, positions))),
        ("it does not decode through a standard KV cache", torch.cat(one_by_one, dim=1)),
    ):
        if not torch.allclose(got, expected, atol=tolerance, rtol=0):
            raise ValueError(
                f"{type(model.lm).__name__} is not supported: {what} (logits differ by "
                f"{float((got - expected).abs().max()):.3g} from its own forward pass)"
            )
