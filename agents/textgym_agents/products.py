"""Products of a few rows with a model's weights, from copies of these that lie as the processor's library reads them best.

Left out on purpose: gradients, and other numbers than float32 on a CPU. Where weights come from outside the caches, as in
every pass of one token per text, 16 rows through the layers and head of a 4 x 256 GPT-2 take 5.3 ms by MKL on an AMD EPYC, 2.3
from oneDNN's own layout. On an Intel Xeon MKL is quicker than that, but as quick as it can be only where weights lie as
GPT-2's layers have them, inputs before outputs: 32 rows through its head, which has them the other way round, take 786 us and
587 from a copy that is turned. On other processors nothing was measured, and torch's products stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from textgym_agents.processor import made_by_amd, made_by_intel

_MOST = 2**26  # numbers in all copies


class Layout(NamedTuple):
    """How copies lie, and which products are taken from them: those in which they were measured to be quicker."""

    lay_out: Callable[[Tensor], Tensor]
    """Gives the copy of a weight (n, k), n outputs."""
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """Gives rows (m, k) times the weight of a copy, and a bias (n,) or None: (m, n)."""
    script: str
    """The same in TorchScript, of ``rows``, ``weight`` and ``bias``; see ``script``."""
    least: int
    """Numbers in the smallest weight that is copied."""
    most: int
    """Numbers in the largest."""
    few: int
    """Fewer rows are multiplied by torch, with the weight itself."""
    addmm: bool
    """Whether weights that torch is given as (k, n) are copied too."""


def _by_onednn(rows: Tensor, copy: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, copy, bias, "none", [], "")


def _by_mkl(rows: Tensor, copy: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(rows, copy) if bias is None else torch.addmm(bias, rows, copy)


_ONEDNN = 'return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")'
_MKL = "return torch.mm(rows, weight) if bias is None else torch.addmm(bias, rows, weight)"

# Smaller weights cost less than oneDNN's calls do.
ONEDNN = Layout(
    lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()),
    _by_onednn,
    _ONEDNN,
    2**17,
    _MOST,
    few=1,
    addmm=True,
)
# 768 x 3,072 are no quicker turned, 256 x 4,096 a quarter; 3 rows are not, 4 are.
TURNED = Layout(lambda weight: weight.T.contiguous(), _by_mkl, _MKL, 2**16, 2**20, few=4, addmm=False)


def best_layout() -> Layout | None:
    """Give the layout that pays on this processor; None where torch's own products stay."""
    if not torch.backends.mkl.is_available():
        return None
    if made_by_amd() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ONEDNN
    return TURNED if made_by_intel() else None


class _Copy(NamedTuple):
    weight: nn.Parameter
    version: int
    place: int
    laid_out: Tensor
    seal: Tensor
    """Products of the weight's rows with random numbers."""


class Products(TorchFunctionMode):
    """Takes the products of what runs inside it from copies of the weights; ``linear`` and ``addmm`` do it for one.

    Args:
        layout: of the copies, see ``best_layout``.

    A copy is made when a product first needs it, and anew when its weight has another version or place. An optimizer may
    change weights without either (torch's fused ones do): ``forget_changed`` finds that too.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        """Of the copies."""
        self._lock = Lock()
        self._copies: dict[tuple[int, bool], _Copy] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what was called, if it is a product, from a copy."""
        if func is linear:
            func = self.linear
        elif func is torch.addmm and self.layout.addmm and len(args) == 3:  # it may be given by other names too
            func = self.addmm
        return func(*args, **(kwargs or {}))

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Do what ``torch.nn.functional.linear`` does. (..., k), (n, k) -> (..., n)."""
        rows = input.reshape(-1, input.shape[-1])
        laid_out = self._laid_out(weight, False, len(rows)) if _is_plain(input) else None
        if laid_out is None:
            return linear(input, weight, bias)
        return self.layout.product(rows, laid_out, bias).view(*input.shape[:-1], -1)

    def addmm(self, bias: Tensor, input: Tensor, weight: Tensor, **scales: Any) -> Tensor:
        """Do what ``torch.addmm`` does: GPT-2 keeps its weights so. (n,), (m, k), (k, n) -> (m, n)."""
        plain = bias.dim() == 1 and not scales and _is_plain(input)
        laid_out = self._laid_out(weight, True, len(input)) if plain else None
        if laid_out is None:
            return torch.addmm(bias, input, weight, **scales)
        return self.layout.product(input, laid_out, bias)

    def operands(self, weights: Sequence[tuple[Tensor, bool]], rows: int) -> tuple[list[Tensor], list[bool]]:
        """Give what products with ``rows`` rows are taken from, and of each whether it is a copy.

        Args:
            weights: each with whether it is ``addmm``'s (k, n), or ``linear``'s (n, k).
            rows: m.
        """
        laid_out = [self._laid_out(weight, as_addmm, rows) for weight, as_addmm in weights]
        taken = [weight if copy is None else copy for (weight, _), copy in zip(weights, laid_out, strict=True)]
        return taken, [copy is not None for copy in laid_out]

    @torch.no_grad()
    def forget_changed(self) -> None:
        """Forget copies whose weights have changed since, by whatever means: reads all of these once."""
        changed = [key for key, copy in self._copies.items() if not torch.equal(copy.seal, _seal(copy.weight))]
        for key in changed:
            del self._copies[key]

    def _laid_out(self, weight: Tensor, transposed: bool, rows: int) -> Tensor | None:
        """Give the copy of a weight, as it is now; None where products with so many rows shall not be taken from one."""
        layout = self.layout
        if not layout.least <= weight.numel() <= layout.most or rows < layout.few or (transposed and not layout.addmm):
            return None
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return None
        key = id(weight), transposed
        copy = self._copies.get(key)
        # The copy holds its weight, so no other can have its id meanwhile.
        if copy is not None and copy.version == weight._version and copy.place == weight.data_ptr():
            return copy.laid_out
        if type(weight) is not nn.Parameter or not _is_plain(weight) or weight.dim() != 2 or weight.is_inference():
            return None
        with self._lock:  # two threads may run halves of a pass
            self._copies.pop(key, None)
            if weight.numel() + sum(copy.weight.numel() for copy in self._copies.values()) > _MOST:
                return None
            laid_out = layout.lay_out(weight.T if transposed else weight)
            self._copies[key] = _Copy(weight, weight._version, weight.data_ptr(), laid_out, _seal(weight))
        return laid_out


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.layout == torch.strided


def _seal(weight: Tensor) -> Tensor:
    """Give numbers (rows,) of a weight that change, beyond rounding, when any of its numbers does."""
    random = torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(0))
    return weight @ random
