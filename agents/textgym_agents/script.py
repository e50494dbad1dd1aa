"""A recorded graph as TorchScript: one call runs all of it, and other threads of Python run meanwhile.

Left out on purpose: compiling, see ``torchscript``. This saves what Python spends between operations, a seventh of a pass of
32 rows (4 x 256), and lets two threads run two halves of the rows at once. What cannot be written is not recorded.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from textgym_agents.blocks import Ragged, least_read
from textgym_agents.masks import Windows
from textgym_agents.products import Products
from textgym_agents.slots import SlotLayer
from textgym_agents.torchscript import TorchScript

ATTEND = "textgym_agents::attend"
"""Name of the operation that stands for a layer's attention in the graph: (query, key, value, layer, scaling)."""

_OPERATORS = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//"}
_PRODUCT = """
def copied(rows, weight, bias: Optional[Tensor]):
    {product}

def product(x, weight, bias: Optional[Tensor], is_copy: bool, as_addmm: bool):
    if is_copy:
        return copied(x.reshape([-1, x.size(-1)]), weight, bias).view(x.size()[:-1] + [-1])
    if as_addmm and bias is not None:
        return torch.addmm(bias, x, weight)
    return torch.ops.aten.linear(x, weight, bias)
"""
# What `blocks._ragged` does. What was read is added up and given back: a sum that nobody wants would be left out.
_ATTEND = """
def attend(query, key, value, keys, values, places, first: int, blocks: List[Tuple[int, int, int]], masks: List[Tensor],
           texts: List[Tuple[int, int]], scaling: Optional[float], seen: Tensor):
    heads = key.size(1)
    groups = query.size(1) // heads
    size = key.size(3)
    token = heads * size
    columns = keys.size(1)
    for store, states in [(keys, key), (values, value)]:
        store.view([-1, heads, size]).index_copy_(0, places, states.transpose(1, 2).flatten(0, 1))
    each = query.permute(2, 1, 0, 3)
    parts: List[Tensor] = []
    for i in range(len(blocks)):
        a, b, width = blocks[i]
        shape = [b - a, heads, width, size]
        strides = [columns * token, size, token, 1]
        k = keys.as_strided(shape, strides, a * columns * token)
        v = values.as_strided(shape, strides, a * columns * token)
        if k.numel() >= {least_read}:
            seen = seen + k.sum() + v.sum()
        q = each[a - first : b - first].reshape([b - a, heads, groups, size])
        out = torch._C._nn.scaled_dot_product_attention(q, k, v, masks[i], 0.0, False, scale=scaling)
        parts.append(out.reshape([b - a, heads * groups, size]).contiguous())
    for a, b in texts:
        out = torch._C._nn.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], None, 0.0, b - a > 1, scale=scaling, enable_gqa=groups > 1)
        parts.append(out.transpose(1, 2).contiguous()[0])
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), seen
"""
_RUN = """
def run(ids, positions, weights: List[Tensor], operands: List[Tensor], copies: List[bool], keys: List[Tensor],
        values: List[Tensor], places, first: int, blocks: List[Tuple[int, int, int]], masks: List[List[Tensor]],
        texts: List[Tuple[int, int]]):
    seen = torch.zeros([])
    {lines}
    return {result}, seen
"""


class Script:
    """A graph that is run as TorchScript.

    Args:
        graph: its inputs are ids and positions, int64 (1, q), then weights; attention is ``ATTEND``.
        layer_types: the kind of each layer, by its number.
        windows: the model's layer kinds; masks are given for each of them.
        products: what takes products from copies of weights; None: torch.

    Raises:
        NotImplementedError: there is something in the graph that cannot be written.
        RuntimeError: TorchScript does not know an operation.
    """

    def __init__(self, graph: fx.Graph, layer_types: Mapping[int, str], windows: Windows, products: Products | None) -> None:
        self._products = products
        self._kinds = list(windows)
        self._operands: list[tuple[int, bool]] = []  # of each product: number of its weight, whether addmm takes it
        self._layers = layer_types
        ids, positions, *weights = graph.find_nodes(op="placeholder")
        self._names = {ids: "ids", positions: "positions"} | {node: f"weights[{i}]" for i, node in enumerate(weights)}
        self._number = {node: i for i, node in enumerate(weights)}
        lines = [self._line(node) for node in graph.nodes if node.op not in ("placeholder", "output")]
        result = self._text(graph.output_node().args[0])
        product = "return rows" if products is None else products.layout.script.strip()
        source = (
            _PRODUCT.format(product="\n    ".join(product.splitlines()))
            + _ATTEND.format(least_read=least_read())
            + _RUN.format(lines="\n    ".join(lines), result=result)
        )
        self._run = TorchScript(source, "run")

    def __call__(self, ids: Tensor, positions: Tensor, weights: Sequence[Tensor], plan: Ragged) -> Tensor:
        """Give the states (1, q, hidden) of the tokens ids, positions (1, q), which attend and are cached as planned."""
        operands = [(weights[number], as_addmm) for number, as_addmm in self._operands]
        if self._products is None:
            taken, copies = [weight for weight, _ in operands], [False] * len(operands)
        else:
            taken, copies = self._products.operands(operands, ids.numel())
        masks = [[mask if isinstance(mask, Tensor) else mask[kind] for mask in plan.masks] for kind in self._kinds]
        layers = [layer for layer in plan.cache.layers if isinstance(layer, SlotLayer)]
        keys, values = [layer.keys for layer in layers], [layer.values for layer in layers]
        states, _ = self._run(
            ids, positions, weights, taken, copies, keys, values, plan.places, plan.first, plan.blocks, masks, plan.texts
        )
        return states

    def _line(self, node: fx.Node) -> str:
        """Write a node."""
        target, own, args = node.target, self._text(node), [self._text(arg) for arg in node.args]
        name = getattr(getattr(target, "_schema", None), "name", "")
        named = [f"{key}={self._text(value)}" for key, value in node.kwargs.items()]
        if name == ATTEND:
            query, key, value, layer, scaling = args
            kind = self._kinds.index(self._layers[int(layer)]) if len(self._kinds) > 1 else 0
            return (
                f"{own}, seen = attend({query}, {key}, {value}, keys[{layer}], values[{layer}], places, first, blocks, "
                f"masks[{kind}], texts, {scaling}, seen)"
            )
        if name in ("aten::linear", "aten::addmm") and not named:
            as_addmm = name == "aten::addmm"
            weight = node.args[2 if as_addmm else 1]
            if weight in self._number:
                x, bias = (args[1], args[0]) if as_addmm else (args[0], args[2] if len(args) > 2 else "None")
                at = len(self._operands)
                self._operands.append((self._number[weight], as_addmm))
                return f"{own} = product({x}, operands[{at}], {bias}, copies[{at}], {as_addmm})"
        if name == "aten::sym_size":
            return f"{own} = {args[0]}.size({args[1]})"
        if name:
            return f"{own} = torch.ops.{name.replace('::', '.')}({', '.join(args + named)})"
        if node.op == "call_method":
            return f"{own} = {args[0]}.{target}({', '.join(args[1:] + named)})"
        if target is torch.squeeze or target is torch.unsqueeze:
            return f"{own} = torch.{'squeeze' if target is torch.squeeze else 'unsqueeze'}({args[0]}, {args[1]})"
        if target is operator.getitem:
            return f"{own} = {args[0]}[{args[1]}]"
        if target in _OPERATORS:
            return f"{own} = {args[0]} {_OPERATORS[target]} {args[1]}"
        raise NotImplementedError(f"{target} in a recorded pass is not written as TorchScript")

    def _text(self, value: Any) -> str:
        """Write an argument."""
        if isinstance(value, fx.Node):
            return self._names.get(value, f"of_{value.name}")  # no name of anything else here
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if isinstance(value, torch.device):
            return f'torch.device("{value}")'
        if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.layout, torch.memory_format)):
            return repr(value)
        raise NotImplementedError(f"{value!r} in a recorded pass is not written as TorchScript")
