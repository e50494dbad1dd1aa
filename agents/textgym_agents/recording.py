"""A language model's pass over tokens in one row, recorded once and replayed without the Python of its modules.

Left out on purpose: a compiler. What is replayed are the model's own operations in their order, but for views that change
nothing (see ``_Nodes``), with the same numbers, its live weights (or the copies of them that ``Products`` keeps) and the same
attention; only what Python did between them is gone, see ``script``. Whatever cannot be recorded runs as it did.
"""

from __future__ import annotations

import copy
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, export
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from textgym_agents.blocks import Ragged
from textgym_agents.masks import Windows
from textgym_agents.products import Products
from textgym_agents.script import ATTEND, Script

_NAME = "textgym_recording"
_NO_OPS = ("aten.clone", "aten.detach", "aten.alias", "aten.dropout", "aten._assert_tensor_metadata")  # where gradients are off
_ROW_WISE = frozenset(
    {"embedding", "linear", "layer_norm", "add", "sub", "mul", "pow", "rsqrt", "gelu", "silu", "relu", "tanh"}
)
_TOKENS = 4  # of the example pass; a length of 1 would be taken for fixed


class Recording:
    """A recorded pass.

    Args:
        backbone: the language model without its head; it stays as it is, and its weights are read where they lie.
        windows: its layer kinds.
        products: what takes its products with weights; None: torch.

    Raises:
        Exception: whatever ``torch.export`` and ``Script`` raise where the model's pass hangs on numbers, cannot be traced, or
            cannot be written.
    """

    def __init__(self, backbone: Any, windows: Windows, products: Products | None = None) -> None:
        self._views = [kind.values() for module in backbone.modules() for kind in _parts(module)]  # they follow what changes
        self._parts = list(chain.from_iterable(self._views))
        twin = copy.deepcopy(backbone)  # recording puts other tensors in the weights' places; others may run it
        config = twin.config.get_text_config()
        config._attn_implementation = _NAME
        rows = tuple(torch.arange(_TOKENS)[None] for _ in range(2))  # one tensor given twice would be taken for one input
        with torch.no_grad():
            dynamic = {1: Dim.DYNAMIC}
            program = export(_Pass(twin), rows, dynamic_shapes={"ids": dynamic, "positions": dynamic}, strict=False)
        self._graph, names = _rewrite(program.module(check_guards=False).graph)
        held = dict(backbone.named_parameters(remove_duplicate=False)) | dict(backbone.named_buffers(remove_duplicate=False))
        constants: dict[str, Any] = dict(program.constants)
        self._weights: list[Tensor] = [
            held[name.removeprefix("backbone.")] if name.removeprefix("backbone.") in held else constants[name]
            for name in names
        ]
        kinds = dict(enumerate(getattr(config, "layer_types", None) or ()))
        self._script = Script(self._graph, kinds, windows, products)

    def fits(self) -> bool:
        """Whether the model still has the modules, weights, buffers and hooks that it was recorded with; adapters add some."""
        return sum(map(len, self._views)) == len(self._parts) and all(map(is_, chain.from_iterable(self._views), self._parts))

    def __call__(self, ids: Tensor, positions: Tensor, plan: Ragged) -> Tensor:
        """Give the states (1, q, hidden) of the tokens ids, positions (1, q), which attend and are cached as planned."""
        return self._script(ids, positions, self._weights, plan)


def _parts(module: nn.Module) -> tuple[dict[Any, Any], ...]:
    return module._modules, module._parameters, module._buffers, module._forward_hooks, module._forward_pre_hooks


class _Pass(nn.Module):
    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        # A mask with four dimensions is taken as it is; this one is never read.
        mask = torch.zeros(1, 1, 1, 1)
        out = self.backbone(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
        return out.last_hidden_state


@torch.library.custom_op(ATTEND, mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor, layer: int, scaling: float | None) -> Tensor:
    """Stand for a layer's attention while a pass is recorded; it is never run."""
    raise NotImplementedError


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, layer: int, scaling: float | None) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
    return _attend(query, key, value, module.layer_idx, options.get("scaling")), None


def _does_nothing(node: fx.Node) -> bool:
    name = str(node.target).rpartition(".")[0]
    source = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], fx.Node) else None
    return name in _NO_OPS or (name == "aten.to" and isinstance(source, Tensor) and source.dtype == node.meta["val"].dtype)


class _Nodes(dict[fx.Node, fx.Node]):
    """The nodes of a graph in a new one, where what is (1, q, size) is kept as (q, size) as long as that does as well.

    Views to and fro are a third of what a pass calls. A node that was kept so gets its first dimension when it is asked for.
    """

    def __init__(self, new: fx.Graph) -> None:
        super().__init__()
        self._new = new
        self._flat: dict[fx.Node, fx.Node] = {}

    def __missing__(self, node: fx.Node) -> fx.Node:
        self[node] = self._new.call_function(torch.unsqueeze, (self._flat[node], 0))
        return self[node]

    def flat(self, node: fx.Node) -> fx.Node:
        """Give a node without its first dimension, of 1."""
        if node not in self._flat:
            self._flat[node] = self._new.call_function(torch.squeeze, (self[node], 0))
        return self._flat[node]

    def same(self, node: fx.Node, source: fx.Node) -> None:
        """Let a node be another."""
        for kept in (self, self._flat):
            if source in kept:
                kept[node] = kept[source]

    def view(self, node: fx.Node) -> bool:
        """Take a node that is another in another shape. Returns whether it could."""
        source, shape = node.args[0], _shape(node)
        before = _shape(source)
        if _name(node) not in ("view", "reshape") or shape is None or before is None:
            return False
        assert isinstance(source, fx.Node)
        if shape == ("1", *before):
            self._flat[node] = self[source]
        elif before == ("1", *shape):
            self[node] = self.flat(source)
        elif source in self._flat:
            self[node] = self._new.call_method(_name(node), (self._flat[source], *fx.map_arg(node.args[1:], self.__getitem__)))
        else:
            return False
        return True

    def row_wise(self, node: fx.Node) -> bool:
        """Take a node that does the same to every row, without their first dimension. Returns whether it is one of these."""
        name, shape = _name(node), _shape(node)
        of_rows = name in _ROW_WISE or (name == "mean" and node.args[1] == [-1])
        if not of_rows or shape is None or len(shape) != 3 or shape[0] != "1":
            return False
        dims = {other: _shape(other) or () for other in node.all_input_nodes}
        per_row = {other for other, size in dims.items() if size[:2] == shape[:2] and (len(size) == 3 or name == "embedding")}
        if any(len(size) > 2 and other not in per_row for other, size in dims.items()):
            return False  # the same for all rows, it would bring the first dimension back
        self._flat[node] = self._new.node_copy(node, lambda other: self.flat(other) if other in per_row else self[other])
        return True


def _name(node: fx.Node) -> str:
    """Give NAME of an operation "aten.NAME.OVERLOAD"."""
    library, _, name = str(node.target).rpartition(".")[0].partition(".")
    return name if library == "aten" else ""


def _shape(node: Any) -> tuple[str, ...] | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(map(str, value.shape)) if isinstance(value, Tensor) else None


def _rewrite(graph: fx.Graph) -> tuple[fx.Graph, list[str]]:
    """Make weights inputs, and drop what does nothing. Returns the graph and the weights' names."""
    new = fx.Graph()
    env = _Nodes(new)
    # Where an operation writes in place a copy is more than its source: the source may be a weight.
    in_place = any(str(node.target).rpartition(".")[0].endswith("_") for node in graph.nodes if node.op == "call_function")
    weights: dict[str, fx.Node] = {}
    for op in ("placeholder", "get_attr"):  # inputs come first in a graph
        for node in graph.find_nodes(op=op):
            if op == "placeholder" or node.target not in weights:
                env[node] = new.placeholder(node.name)
                weights |= {node.target: env[node]} if op == "get_attr" else {}
            else:
                env[node] = weights[node.target]
    for node in graph.nodes:
        if node.op == "output":
            new.output(env[node.all_input_nodes[0]])
        elif node.op != "call_function":
            continue
        elif not in_place and _does_nothing(node):
            env.same(node, node.args[0])
        elif in_place or not (env.view(node) or env.row_wise(node)):
            env[node] = new.node_copy(node, env.__getitem__)
    new.eliminate_dead_code()
    for node in new.nodes:
        node.meta.clear()  # of the copy that was recorded
    return new, list(weights)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
