"""Products of a few rows with a model's large weights, from copies of these that lie as oneDNN reads them.

Left out on purpose: gradients, and other numbers than float32 on a CPU. Where weights come from outside the caches, as in
every pass of one token per text, a product waits for memory: 16 rows through the layers and head of a 4 x 256 GPT-2 take 5.3 ms
by MKL on an AMD EPYC, 2.3 from oneDNN's own layout. On Intel's processors that was not measured, and torch's products stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from textgym_agents.processor import made_by_amd

_LEAST = 2**17  # numbers in a weight that is copied; a smaller one costs less than oneDNN's calls do
_MOST = 2**26  # numbers in all copies


class _Copy(NamedTuple):
    weight: nn.Parameter
    version: int
    place: int
    laid_out: Tensor
    seal: Tensor
    """Products of the weight's rows with random numbers."""


class Products(TorchFunctionMode):
    """Takes the products of what runs inside it from copies of the weights; ``linear`` and ``addmm`` do it for one.

    A copy is made when a product first needs it, and anew when its weight has another version or place. An optimizer may
    change weights without either (torch's fused ones do): ``forget_changed`` finds that too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[tuple[int, bool], _Copy] = {}

    @staticmethod
    def pay() -> bool:
        """Whether they are quicker here than torch's own."""
        return made_by_amd() and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what was called, if it is a product, from a copy."""
        if func is linear:
            func = self.linear
        elif func is torch.addmm and len(args) == 3:  # it may be given by other names too
            func = self.addmm
        return func(*args, **(kwargs or {}))

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Do what ``torch.nn.functional.linear`` does. (..., k), (n, k) -> (..., n)."""
        laid_out = self._laid_out(weight, False) if _is_plain(input) else None
        if laid_out is None:
            return linear(input, weight, bias)
        return _product(input.reshape(-1, input.shape[-1]), laid_out, bias).view(*input.shape[:-1], -1)

    def addmm(self, bias: Tensor, input: Tensor, weight: Tensor, **scales: Any) -> Tensor:
        """Do what ``torch.addmm`` does: GPT-2 keeps its weights so. (n,), (m, k), (k, n) -> (m, n)."""
        laid_out = self._laid_out(weight, True) if bias.dim() == 1 and not scales and _is_plain(input) else None
        return torch.addmm(bias, input, weight, **scales) if laid_out is None else _product(input, laid_out, bias)

    @torch.no_grad()
    def forget_changed(self) -> None:
        """Forget copies whose weights have changed since, by whatever means: reads all of these once."""
        changed = [key for key, copy in self._copies.items() if not torch.equal(copy.seal, _seal(copy.weight))]
        for key in changed:
            del self._copies[key]

    def _laid_out(self, weight: Tensor, transposed: bool) -> Tensor | None:
        """Give the copy of a weight, as it is now; None where there shall be none."""
        if weight.numel() < _LEAST or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return None
        key = id(weight), transposed
        copy = self._copies.get(key)
        # The copy holds its weight, so no other can have its id meanwhile.
        if copy is not None and copy.version == weight._version and copy.place == weight.data_ptr():
            return copy.laid_out
        if type(weight) is not nn.Parameter or not _is_plain(weight) or weight.dim() != 2 or weight.is_inference():
            return None
        self._copies.pop(key, None)
        if weight.numel() + sum(copy.weight.numel() for copy in self._copies.values()) > _MOST:
            return None
        rows = (weight.T if transposed else weight).contiguous()
        laid_out = torch.ops.mkldnn._reorder_linear_weight(rows)
        self._copies[key] = _Copy(weight, weight._version, weight.data_ptr(), laid_out, _seal(weight))
        return laid_out


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.layout == torch.strided


def _product(input: Tensor, laid_out: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, laid_out, bias, "none", [], "")


def _seal(weight: Tensor) -> Tensor:
    """Give numbers (rows,) of a weight that change, beyond rounding, when any of its numbers does."""
    random = torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(0))
    return weight @ random
