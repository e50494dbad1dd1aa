"""Which language models can be used, found out at construction: sizes, layer kinds, and a probe of the forward pass.

Left out on purpose: a list of model names. A model is supported if its own forward pass says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textgym_agents.masks import Windows, layer_windows

_PROBE_TOKENS = 2048  # longest text of the probe: a larger sliding window is taken from the config, unprobed
_LARGE = 50.0  # the probe's largest logit, so that a cap or a factor after the head shows in a fresh model too


@dataclass(frozen=True)
class LogitRule:
    """What a model does to its head's outputs x: ``cap * tanh(factor * x / cap)``, or ``factor * x`` without a cap."""

    factor: float = 1.0
    """Cohere's ``logit_scale``, or one over Granite's ``logits_scaling``."""
    cap: float | None = None
    """Gemma's ``final_logit_softcapping``."""

    @classmethod
    def read(cls, config: Any) -> LogitRule:
        """Read it from a model's config; whether the model does so is for the probe to say."""
        config = config.get_text_config()
        factor = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(factor, getattr(config, "final_logit_softcapping", None))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Turn the head's outputs into logits, (..., V) both."""
        logits = outputs if self.factor == 1 else outputs * self.factor
        return logits if self.cap is None else (logits / self.cap).tanh() * self.cap


class SplitModel(Protocol):
    """A language model that can be run without its head, and cached in slots."""

    lm: PreTrainedModel
    vocab_size: int
    context_length: int
    windows: Windows

    def slot_cache(self, num_rows: int) -> Any:
        """Make an empty cache."""
        ...

    def policy_hidden(self, ids: Tensor, positions: Tensor, mask: Any = None, cache: Any = None) -> Tensor:
        """Run it without its head."""
        ...

    def value_hidden(self, ids: Tensor, positions: Tensor, mask: Any = None) -> Tensor:
        """Run the model that the values come from."""
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
    if getattr(lm.config, "is_encoder_decoder", False):
        raise ValueError(f"{name} is not supported: it is an encoder-decoder; give a causal language model (decoder only)")
    if getattr(lm, "_is_stateful", False):
        raise ValueError(
            f"{name} is not supported: it keeps a recurrent state, which has no columns that a slot could be refilled in; "
            "give a model with attention layers only"
        )
    _check_sizes(lm, {"logits": head_of(lm)}, vocab_size, context_length)


def check_value_model(value_lm: PreTrainedModel, lm: PreTrainedModel, vocab_size: int, context_length: int) -> None:
    """Raise ValueError where the value model cannot stand beside the language model, whose masks it reads."""
    _check_sizes(value_lm, {}, vocab_size, context_length)
    for what, own, other in (
        ("dtype", value_lm.dtype, lm.dtype),
        ("device", value_lm.device, lm.device),
        ("sliding windows", *(layer_windows(m.config.get_text_config(), context_length) for m in (value_lm, lm))),
    ):
        if own != other:
            raise ValueError(f"the value model's {what} is {own} but the language model's is {other}; they must be the same")


def _check_sizes(lm: PreTrainedModel, heads: dict[str, Any], vocab_size: int, context_length: int) -> None:
    name = type(lm).__name__
    for what, layer in {**heads, "embeddings": lm.get_input_embeddings()}.items():
        if layer.weight.shape[0] < vocab_size:
            raise ValueError(
                f"{name} has {layer.weight.shape[0]} {what} but the tokenizer has {vocab_size} tokens; use the tokenizer that "
                "the model was trained with, or lm.resize_token_embeddings"
            )
    config = lm.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None)
    if room is not None and room < context_length:
        raise ValueError(
            f"{name} has {room} positions but the environment's context_length is {context_length}; lower "
            "max_prompt_tokens or max_new_tokens"
        )
    for rope in _ropes(config):
        original = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", room)
        if rope.get("rope_type") in ("longrope", "dynamic") and original is not None and context_length > original:
            raise ValueError(
                f"{name} is not supported at a context_length of {context_length}: its {rope['rope_type']} positions change "
                f"with the longest text of a batch beyond {original} tokens; lower max_prompt_tokens or max_new_tokens"
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


def _ropes(config: Any) -> list[dict[str, Any]]:
    """Give the parameters of rotary positions, one set or one per layer kind."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return [part for part in (rope, *rope.values()) if isinstance(part, dict)]


@torch.no_grad()
def probe(model: SplitModel) -> None:
    """Compare the split forward pass and the slot cache with the model's own on a few tokens; refuse where they differ.

    Where a sliding window is smaller than the context, one pass over ``window + 2`` tokens (at most 2,048) is compared too.

    Raises:
        ValueError: they differ, or the model cannot be run so.
    """
    name = type(model.lm).__name__
    try:
        differences = dict(_differences(model))
    except torch.OutOfMemoryError:
        raise
    except (TypeError, AttributeError, LookupError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} is not supported: it cannot be run through the slot cache ({error})") from error
    tolerance = 0.05 if model.lm.dtype in (torch.float16, torch.bfloat16) else 1e-3
    for what, difference in differences.items():
        if not difference <= tolerance:
            raise ValueError(
                f"{name} is not supported: {what} (results differ by {difference:.3g} of the largest from its own forward pass)"
            )


def _differences(model: SplitModel) -> Iterator[tuple[str, float]]:
    """Give each comparison's name as a fault, and its largest difference as a share of the largest number compared."""
    length = min(4, model.context_length)
    ids = (torch.arange(2 * length, device=model.lm.device) % model.vocab_size).reshape(2, length)
    positions = torch.arange(length, device=ids.device).expand_as(ids)
    states = model.policy_hidden(ids, positions)
    with _large_logits(model, states):
        own = model.lm(input_ids=ids, use_cache=False).logits[..., : model.vocab_size].float()
        yield "what follows its head is not in its config as a factor or a soft cap", _share(model.logits(states), own)
        cache = model.slot_cache(2)
        steps = []
        for column in range(length):
            at = positions[:, column : column + 1]
            steps.append(
                model.policy_hidden(ids[:, column : column + 1], at, cache.aim(None, at, column + 1, model.lm.dtype), cache)
            )
        cached = torch.cat(steps, dim=1)
        yield "it does not decode through a standard KV cache", max(_share(model.logits(cached), own), _share(cached, states))
    if length == 4:
        yield "rows of its cache cannot have lengths of their own", _share(*_uneven(model, ids, states))
    windows = [window for window in model.windows.values() if window is not None and window + 2 <= _PROBE_TOKENS]
    if windows:
        ids = (torch.arange(min(max(windows) + 2, model.context_length), device=ids.device) % model.vocab_size)[None]
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        cache = model.slot_cache(1)
        cached = model.policy_hidden(ids, positions, cache.aim(None, positions, ids.shape[1], model.lm.dtype), cache)
        yield "its sliding window is not as its config says", _share(cached, model.policy_hidden(ids, positions))


def _uneven(model: SplitModel, ids: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Run two rows in two passes, one 1 + 2 tokens and the other 3 + 1. Returns their last states, and the expected ones."""
    cache, spare = model.slot_cache(2), model.context_length
    hidden = states
    for columns, width in (([[0, spare, spare], [0, 1, 2]], 3), ([[1, 2], [3, spare]], 4)):
        at = torch.tensor(columns, device=ids.device)
        places = at.clamp(max=ids.shape[1] - 1)
        hidden = model.policy_hidden(ids.gather(1, places), places, cache.aim(None, at, width, model.lm.dtype), cache)
    return torch.stack([hidden[0, 1], hidden[1, 0]]), torch.stack([states[0, 2], states[1, 3]])


def _share(got: Tensor, own: Tensor) -> float:
    return float((got.float() - own.float()).abs().max() / own.float().abs().max().clamp(min=1e-6))


@contextmanager
def _large_logits(model: SplitModel, states: Tensor) -> Iterator[None]:
    """Scale the head's outputs, for whoever calls it, so that the largest is ``_LARGE``."""
    largest = float(model.logits(states).abs().max())
    handle = head_of(model.lm).register_forward_hook(lambda head, args, output: output * (_LARGE / max(largest, 1e-6)))
    try:
        yield
    finally:
        handle.remove()
