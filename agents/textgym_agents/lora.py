"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) through peft, which only a run with adapters needs.

Left out on purpose: a wrapper around the model. peft puts its layers into the language model itself, so the slot cache, the
probe and the head find the class that they know. y = W x + (alpha / rank) B A x, and B starts at 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_NAME = "default"  # peft's name of the only adapter


def add_lora(model: Any, rank: int, alpha: float | None = None, targets: Sequence[str] = (), seed: int = 0) -> None:
    """Put adapters into an ``ActorCritic``; only they and the value head learn from then on. Its outputs stay as they are.

    Call it where the model is as the KL reference shall be, so after a warm-up; an optimizer made before knows no adapter.

    Args:
        model: the ``ActorCritic``; a value model in it gets adapters of its own.
        rank: of A and B.
        alpha: the adapter's product is scaled by ``alpha / rank``; None: 2 * rank.
        targets: ends of the names of the linear layers to adapt; empty: all but the head.
        seed: of the weights A.

    Raises:
        ValueError: as ``check_lora``.
    """
    check_lora(model, rank, alpha, targets)
    peft = importlib.import_module("peft")
    for number, lm in enumerate(lm for lm in (model.lm, model.value_lm) if lm is not None):
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=2 * rank if alpha is None else alpha,
            target_modules=list(targets) or "all-linear",
            # GPT-2 stores its weights transposed, in a layer of its own.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in lm.modules()),
        )
        devices = [lm.device] if lm.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # peft draws weights from the global generator; leave it as it was
            torch.manual_seed(seed + number)
            peft.inject_adapter_in_model(config, lm)
        lm.eval()


def check_lora(model: Any, rank: int, alpha: float | None = None, targets: Sequence[str] = ()) -> None:
    """Check that ``add_lora`` can do what it is asked to, before anything is changed.

    Raises:
        ValueError: peft is not installed, a number is out of range, there are adapters already, or a target names no layer, or
            one that is no linear layer below the head.
    """
    if rank < 1 or (alpha is not None and not alpha > 0):
        raise ValueError(f"LoRA's rank is {rank} and its alpha {alpha}; rank must be at least 1 and alpha above 0")
    if has_adapters(model.lm):
        raise ValueError("the model has adapters already; a model takes one set of them")
    try:
        importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise ValueError("adapters need peft, which is not installed: pip install 'textgym[lora]'") from error
    for lm in (model.lm, model.value_lm):
        if lm is not None:
            _check_targets(lm, targets)


def _check_targets(lm: Any, targets: Sequence[str]) -> None:
    head, tables = lm.get_output_embeddings(), [m.weight for m in lm.modules() if isinstance(m, nn.Embedding)]
    allowed = {}
    for name, module in lm.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head and not any(module.weight is t for t in tables):
            allowed[name] = module
    ends = ", ".join(sorted({name.rpartition(".")[2] for name in allowed}))
    for target in targets:
        found = {name: m for name, m in lm.named_modules() if name == target or name.endswith(f".{target}")}
        if not found:
            raise ValueError(f"lora_targets has {target!r}, but no layer of {type(lm).__name__} is called so; there are {ends}")
        for name in found.keys() - allowed.keys():
            reason = "is not linear"
            if found[name] is head or isinstance(found[name], nn.Embedding):
                reason = (
                    "is, or may share its weights with, the embeddings, so that adapters cannot be merged into a saved model"
                )
            raise ValueError(
                f"lora_targets has {target!r}, but {name} ({type(found[name]).__name__}) {reason}; allowed are {ends}"
            )


def has_adapters(lm: nn.Module) -> bool:
    """Whether ``add_lora`` was here."""
    return any(True for _ in _adapted(lm))


class AdaptersOff:
    """A model with its adapters off: the model as it was before ``add_lora``, without a second copy."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model without adapters, and without gradients."""
        layers = [layer for _, layer in _adapted(self.model)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            return self.model(*args, **kwargs)
        finally:
            for layer in layers:
                layer.enable_adapters(True)


def merged_state(lm: nn.Module) -> dict[str, Tensor]:
    """Give the weights of the ordinary model that computes the same, W + (alpha / rank) B A, on the CPU; ``lm`` stays."""
    state = {name.replace(".base_layer", ""): t for name, t in lm.state_dict().items() if ".lora_" not in name}
    with torch.no_grad():
        for name, layer in _adapted(lm):
            weight = layer.get_base_layer().weight
            state[f"{name}.weight"] = (weight + layer.get_delta_weight(_NAME)).to(weight.dtype)
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def load_merged(lm: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take the weights of an ordinary model as those below the adapters; the adapters' B start at 0 again."""
    own = {}
    for name, tensor in lm.state_dict().items():
        if ".lora_" in name:
            own[name] = torch.zeros_like(tensor) if ".lora_B" in name else tensor
        else:
            own[name] = state[name.replace(".base_layer", "")]
    lm.load_state_dict(own)


def _adapted(lm: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in lm.named_modules() if hasattr(module, "get_delta_weight"))
