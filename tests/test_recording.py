"""Recorded passes: the plain pass's numbers for every family, whatever its weights become; else the plain pass itself."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, FAMILIES, LAYOUTS, build_lm, take_products_from_copies
from textgym_agents import blocks as blocks_module
from textgym_agents import decode
from textgym_agents.blocks import split_rows
from textgym_agents.decode import Decoder
from textgym_agents.lora import add_lora
from textgym_agents.model import ActorCritic
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.recording import Recording, _Nodes
from textgym_agents.sampling import Sampling
from torch import fx

ROWS = 4
START = [6, 2, 9, 4]  # past the families' window of 5, and before it


class Writer:
    """Rows that grow by one token per pass, each pass compared with the model's own over the whole texts."""

    def __init__(self, model):
        self.model, self.decoder = model, Decoder(model, ROWS, Sampling())
        self.generator = torch.Generator().manual_seed(0)
        self.texts = [self.draw(n) for n in START]
        self.refill()

    def draw(self, n):
        return torch.randint(self.model.vocab_size, (n,), generator=self.generator).tolist()

    @torch.no_grad()
    def refill(self):
        for row, text in enumerate(self.texts):
            one = torch.tensor([row])
            self.decoder.several(one, torch.tensor([text]), 0 * one, 0 * one + len(text), len(text))

    @torch.no_grad()
    def step(self, rows=ROWS, blocks=True):
        """Add a token to the first rows; give the largest difference of their states from a pass over whole texts."""
        for text in self.texts[:rows]:
            text += self.draw(1)
        lengths = np.array([len(text) for text in self.texts[:rows]])
        ids = torch.tensor([text[-1] for text in self.texts[:rows]])
        with patch.object(blocks_module, "_LEAST_SAVED", 0 if blocks else 10**6):
            assert (len(split_rows(lengths)) > 1) == (blocks and rows > 1)
            states = self.decoder._one_token(ids, torch.from_numpy(lengths - 1), lengths)
        full = [torch.tensor([text]) for text in self.texts[:rows]]
        expected = torch.stack([self.model.policy_hidden(ids, torch.arange(ids.shape[1])[None])[0, -1] for ids in full])
        return float((states - expected).abs().max() / expected.abs().max())


def _double(layer: Any, args: Any, output: Any) -> Any:
    return 2 * output


def _add_doubled_bias(layer: Any, args: Any, output: Any) -> Any:
    return output + layer.bias.detach().clone().mul_(2.0)


def _double_large(layer: Any, args: Any, output: Any) -> Any:
    return 2 * output if float(output.sum()) > 1e9 else output


@pytest.fixture(autouse=True)
def record_soon(monkeypatch):
    monkeypatch.setattr(decode, "_RECORD_AFTER", 2)


@pytest.fixture(autouse=True, params=["torch", *LAYOUTS])
def products_of(request, monkeypatch):
    take_products_from_copies(monkeypatch, LAYOUTS.get(request.param))


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_passes_equal_passes_over_whole_texts(letters, family):
    writer = Writer(ActorCritic(build_lm(family, len(letters)), letters, CONTEXT))
    differences = [writer.step() for _ in range(3)]
    # Soft caps inside attention are the eager one's, which is left alone.
    assert (writer.decoder._recording is None) == (writer.model.lm.config._attn_implementation == "eager")
    differences += [writer.step(rows, blocks) for rows, blocks in ((4, False), (2, True), (1, False), (4, True), (4, True))]
    assert max(differences) < 1e-5


@pytest.mark.parametrize("lora", [False, True])
def test_a_recording_reads_weights_that_were_trained_or_loaded_since(letters, lora):
    model = ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT)
    if lora:
        pytest.importorskip("peft")
        add_lora(model, 2)
    writer = Writer(model)
    for _ in range(2):
        writer.step()
    recording = writer.decoder._recording
    assert recording is not None
    learned = [p for p in model.lm.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=0.1)
    model.lm(input_ids=torch.tensor([writer.texts[0]])).logits.square().mean().backward()
    before = [p.detach().clone() for p in learned]
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, learned, strict=True))
    writer.refill()
    assert writer.step() < 1e-5
    model.lm.load_state_dict({name: 0.5 * tensor for name, tensor in model.lm.state_dict().items()})
    writer.refill()
    assert writer.step() < 1e-5
    assert writer.decoder._recording is recording


def test_adapters_and_hooks_that_come_later_end_a_recording(letters):
    pytest.importorskip("peft")
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    writer = Writer(model)
    for _ in range(2):
        writer.step()
    first = writer.decoder._recording
    assert first is not None
    add_lora(model, 2)
    assert not first.fits()
    assert writer.step() < 1e-5
    assert writer.decoder._recording is None
    assert writer.step() < 1e-5
    assert writer.decoder._recording is not None
    model.lm.get_submodule("transformer.h.0.mlp").register_forward_hook(_double)
    assert not writer.decoder._recording.fits()


def test_a_buffer_that_is_replaced_ends_a_recording(letters):
    writer = Writer(ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT))
    for _ in range(2):
        writer.step()
    assert writer.decoder._recording is not None
    rotary = writer.model.lm.get_submodule("model.rotary_emb")
    rotary.inv_freq = 0.5 * rotary.inv_freq
    writer.refill()
    assert writer.step() < 1e-5
    assert writer.decoder._recording is None


def test_a_pass_that_hangs_on_numbers_is_never_recorded(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    model.lm.get_submodule("transformer.h.0.mlp").register_forward_hook(_double_large)
    writer = Writer(model)
    assert max(writer.step() for _ in range(4)) < 1e-5
    assert writer.decoder._recording is None


def test_a_recording_that_gives_other_numbers_is_not_used(letters, monkeypatch):
    monkeypatch.setattr(Recording, "__call__", lambda self, ids, positions, plan: torch.zeros(1, ids.shape[1], 32))
    writer = Writer(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT))
    assert max(writer.step() for _ in range(4)) < 1e-5
    assert writer.decoder._recording is None


@pytest.mark.parametrize("halved", [False, True])
def test_a_policy_is_told_that_a_run_is_long_and_samples_the_same(letters, monkeypatch, halved):
    monkeypatch.setattr(decode, "_RECORD_AFTER", 1000)
    monkeypatch.setattr(decode, "halves_pay", lambda products: halved)
    steps, slots = [], 18
    for soon in (False, True):
        policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), slots)
        if soon:
            policy.record_soon()
        obs = torch.full((slots, CONTEXT), -1)
        obs[:, :3] = torch.randint(len(letters), (slots, 3), generator=torch.Generator().manual_seed(0))
        for length in range(3, 9):
            steps.append(policy.act(obs, range(slots)))
            obs[:, length] = steps[-1].tokens
        assert (policy._decoder._recording is not None) == soon
    for plain, recorded in zip(steps[:6], steps[6:], strict=True):
        assert torch.equal(plain.tokens, recorded.tokens)
        assert torch.equal(plain.logprobs, recorded.logprobs)


def test_new_texts_beside_recorded_rows_equal_plain_passes(letters):
    model = ActorCritic(build_lm("qwen3", len(letters)), letters, CONTEXT)
    writer = Writer(model)
    for _ in range(2):
        writer.step()
    assert writer.decoder.mixes
    states = []
    text = torch.tensor(writer.draw(5))
    for recording in (writer.decoder._recording, None):
        writer.decoder._recording = recording
        columns = torch.tensor([*(len(t) for t in writer.texts[:3]), writer.decoder.spare])
        lengths = np.array([*(len(t) + 1 for t in writer.texts[:3]), 0])
        with torch.no_grad():
            states.append(
                writer.decoder.mixed(torch.arange(4), columns, lengths, text, torch.full((5,), 3), [5])[[0, 1, 2, 4, 8]]
            )
    assert torch.allclose(*states, atol=1e-5)


def test_gradients_flow_through_plain_passes_only(letters):
    writer = Writer(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT))
    for _ in range(2):
        writer.step()
    assert writer.decoder._usable() is None  # gradients are on here
    with torch.no_grad():
        assert writer.decoder._usable() is not None


def test_a_copy_that_is_written_to_stays_a_copy(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    bias = model.lm.get_parameter("transformer.ln_f.bias")
    model.lm.get_submodule("transformer.ln_f").register_forward_hook(_add_doubled_bias)
    torch.nn.init.ones_(bias)
    before = bias.detach().clone()
    writer = Writer(model)
    assert max(writer.step() for _ in range(4)) < 1e-5
    assert torch.equal(bias, before)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox"])
def test_what_is_done_row_by_row_is_done_without_views_to_and_fro(letters, family):
    writer = Writer(ActorCritic(build_lm(family, len(letters)), letters, CONTEXT))
    for _ in range(2):
        writer.step()
    recording = writer.decoder._recording
    assert recording is not None
    products = [node for node in recording._graph.nodes if "linear" in node.name or "addmm" in node.name]
    sources = [str(node.args["addmm" in node.name].target) for node in products]  # addmm is given its bias first
    assert len(sources) >= 8
    assert not any("view" in source for source in sources)
    views = [node for node in recording._graph.nodes if "view" in node.name or "squeeze" in node.name]
    layers = writer.model.lm.config.num_hidden_layers
    assert family != "gpt2" or len(views) <= 4 + 5 * layers  # heads of queries, keys and values, and attention's way in and out


@pytest.mark.parametrize(("other", "taken"), [((1, 5, 3), True), ((3,), True), ((5, 3), True), ((1, 1, 3), False)])
def test_what_is_the_same_for_all_rows_keeps_its_dimensions(other, taken):
    graph, new = fx.Graph(), fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    total = graph.call_function(torch.ops.aten.add.Tensor, (x, y))
    for node, shape in ((x, (1, 5, 3)), (y, other), (total, (1, 5, 3))):
        node.meta["val"] = torch.empty(shape)
    nodes = _Nodes(new)
    nodes[x], nodes[y] = new.placeholder("x"), new.placeholder("y")
    assert nodes.row_wise(total) == taken
    if taken:
        new.output(nodes[total])
        a, b = torch.rand(1, 5, 3), torch.rand(other)
        assert torch.equal(fx.GraphModule({}, new)(a, b), a + b)
