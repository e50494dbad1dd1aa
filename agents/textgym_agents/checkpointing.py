"""Gradient checkpointing for models that stay in eval mode.

Left out on purpose: transformers' own switch, which looks at ``training``: a model in train mode would also drop units out,
and the policy that learns would be another one than the policy that sampled.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(model: nn.Module) -> None:
    """Let every layer of a Hugging Face model keep only its input, and run again in the backward pass.

    Passes without gradients, such as sampling, run as before. A deep copy is independent; a second call changes nothing.

    Raises:
        ValueError: the model has no layer of the kind that transformers itself would checkpoint.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layers that can be checkpointed; leave gradient_checkpointing off and lower "
            "microbatch_tokens"
        )
    for layer in layers:
        layer.forward = MethodType(_checkpointed, layer)  # a bound method: a deep copy binds it to the copied layer


def _checkpointed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(layer).forward, layer)
    if torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
    return forward(*args, **kwargs)
