"""Passes as TorchScript: what is written is what the graph does, and what cannot be written is refused."""

import operator

import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents.blocks import Ragged
from textgym_agents.masks import FULL
from textgym_agents.model import ActorCritic
from textgym_agents.recording import Recording
from textgym_agents.script import Script
from torch import fx

WINDOWS = {FULL: None}


def graph_of(build):
    """Make a graph over ids, positions and one weight, whose result ``build`` adds."""
    graph = fx.Graph()
    given = [graph.placeholder(name) for name in ("ids", "positions", "weight")]
    graph.output(build(graph, *given))
    return graph


def call(script, ids, weight, letters):
    cache = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT).slot_cache(1)
    for layer in cache.layers:
        layer.lazy_initialization(torch.zeros(1, 4, 1, 8), torch.zeros(1, 4, 1, 8))
    plan = Ragged(cache, [], [], [], torch.zeros(0, dtype=torch.int64))
    return script(ids, torch.zeros_like(ids), [weight], plan)


@torch.no_grad()
def test_what_is_written_is_what_the_graph_does(letters):
    ids, weight = torch.arange(4)[None], torch.rand(9, 3, generator=torch.Generator().manual_seed(0))

    def build(graph, ids, positions, weight):
        size = graph.call_function(torch.ops.aten.sym_size.int, (ids, 1))
        flat = graph.call_function(torch.squeeze, (ids, 0))
        rows = graph.call_function(torch.ops.aten.embedding.default, (weight, flat))
        twice = graph.call_function(operator.mul, (size, 2))
        wide = graph.call_function(torch.ops.aten.cat.default, ([rows, rows],))
        seen = graph.call_method("view", (wide, [twice, 3]))
        least = graph.call_function(torch.ops.aten.clamp.default, (seen,), {"min": -float("inf"), "max": 0.5})
        parts = graph.call_function(torch.ops.aten.split.Tensor, (least, 4))
        part = graph.call_function(operator.getitem, (parts, 1))
        moved = graph.call_function(torch.ops.aten.to.dtype, (part, torch.float64))
        return graph.call_function(torch.unsqueeze, (moved, 0))

    script = Script(graph_of(build), {}, WINDOWS, None)
    expected = weight[ids[0]].clamp(max=0.5).double()[None]
    assert torch.equal(call(script, ids, weight, letters), expected)


def test_names_in_a_graph_mean_nothing_outside_of_it(letters):
    graph = graph_of(
        lambda graph, ids, positions, weight: graph.create_node(
            "call_function", torch.ops.aten.neg.default, (weight,), name="attend"
        )
    )
    assert torch.equal(call(Script(graph, {}, WINDOWS, None), torch.zeros(1, 1).long(), torch.ones(2), letters), -torch.ones(2))


@pytest.mark.parametrize("what", ["operation", "argument"])
def test_what_cannot_be_written_is_refused(what):
    def build(graph, ids, positions, weight):
        if what == "operation":
            return graph.call_function(operator.truediv, (weight, 2))
        return graph.call_function(torch.ops.aten.add.Tensor, (weight, 1j))

    with pytest.raises(NotImplementedError, match="is not written as TorchScript"):
        Script(graph_of(build), {}, WINDOWS, None)


def test_an_operation_that_torchscript_has_not_is_its_own_error():
    graph = graph_of(lambda graph, ids, positions, weight: graph.call_method("no_such_method", (weight,)))
    with pytest.raises(RuntimeError, match="no_such_method"):
        Script(graph, {}, WINDOWS, None)


@torch.no_grad()
def test_new_texts_of_a_pass_see_themselves_and_nothing_after(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    recording = Recording(model.lm.base_model, model.windows)
    cache = model.slot_cache(1)
    for layer in cache.layers:
        layer.lazy_initialization(torch.zeros(1, 4, 1, 8), torch.zeros(1, 4, 1, 8))
    plan = Ragged(cache, [], [], [(0, 3)], cache.places(torch.zeros(3).long(), torch.arange(3)))
    ids = torch.tensor([[3, 1, 2]])
    states = recording(ids, torch.arange(3)[None], plan)
    torch.testing.assert_close(states, model.policy_hidden(ids, torch.arange(3)[None]))
