import sys

import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic
from textgym_agents.lora import add_lora
from transformers import AutoModelForCausalLM

TEXT = (torch.tensor([[2, 3, 4, 5, 6, 7, 8]]), torch.tensor([2]), torch.ones(1, 5, dtype=torch.bool))


def build(letters, family="llama", separate=False, **options):
    value_lm = build_lm(family, len(letters), seed=1) if separate else None
    model = ActorCritic(build_lm(family, len(letters)), letters, CONTEXT, value_lm)
    add_lora(model, 2, **options)
    return model


def learn(model, steps=3):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(steps):
        logprobs, values, _ = model(*TEXT)
        optimizer.zero_grad()
        ((values - 1).square().mean() - logprobs.mean()).backward()
        optimizer.step()


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gemma2"])
def test_only_adapters_and_value_head_learn_and_the_reference_stays(letters, family):
    plain = ActorCritic(build_lm(family, len(letters)), letters, CONTEXT)
    model = build(letters, family)
    expected = plain(*TEXT)[0]
    assert torch.allclose(model(*TEXT)[0], expected, atol=1e-6)  # B starts at 0
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    reference = model.frozen_reference()
    learn(model)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert all(".lora_" in name or name.startswith("value_head") for name in changed)
    assert {name for name in before if ".lora_B" in name} <= changed
    assert "value_head.weight" in changed
    learned = model(*TEXT)[0]
    assert not torch.allclose(learned, expected, atol=1e-2)
    assert torch.allclose(reference(*TEXT)[0], expected, atol=1e-6)
    assert torch.equal(model(*TEXT)[0], learned)  # the reference puts the adapters back
    learn(model, 1)
    assert not torch.equal(model(*TEXT)[0], learned)  # and they go on learning


def test_a_reference_without_adapters_is_a_frozen_copy(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    reference = model.frozen_reference()
    expected = model(*TEXT)[0].detach()
    learn(model)
    assert torch.equal(reference(*TEXT)[0], expected)
    assert not reference(*TEXT)[0].requires_grad


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_a_saved_model_is_an_ordinary_one_with_the_adapters_merged(letters, tmp_path, family):
    model = build(letters, family)
    learn(model)
    learned = model(*TEXT)
    model.save(tmp_path)
    assert torch.equal(model(*TEXT)[0], learned[0])  # saving changes nothing
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert not any("lora" in name for name, _ in lm.named_parameters())
    assert torch.allclose(ActorCritic(lm, letters, CONTEXT)(*TEXT)[0], learned[0], atol=1e-5)
    plain = ActorCritic(build_lm(family, len(letters), seed=5), letters, CONTEXT)
    again = build(letters, family, seed=5)
    learn(again, 1)
    for other in (plain, again):
        other.load(tmp_path)
        for a, b in zip(other(*TEXT), learned, strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(again.frozen_reference()(*TEXT)[0], learned[0], atol=1e-5)  # adapters begin anew over it


def test_a_value_model_gets_adapters_of_its_own(letters, tmp_path):
    model = build(letters, separate=True)
    learn(model)
    trained = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"lm", "value_lm", "value_head"}
    model.save(tmp_path)
    other = ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT, build_lm("llama", len(letters)))
    other.load(tmp_path)
    assert torch.allclose(other(*TEXT)[1], model(*TEXT)[1], atol=1e-5)


def test_adapters_go_where_they_are_wanted_seeded_and_draw_no_number_elsewhere(letters):
    before = torch.get_rng_state()
    a, b, c = (build(letters, targets=["q_proj"], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    adapted = [name for name, _ in a.lm.named_parameters() if ".lora_A" in name]
    assert len(adapted) == 2 and all("q_proj" in name for name in adapted)
    weights = [dict(model.lm.named_parameters())[adapted[0]] for model in (a, b, c)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_alpha_scales_what_adapters_add(letters):
    # Doubling alpha doubles what the same weights add.
    added = []
    for alpha in (2, 4):
        model = build(letters, alpha=alpha, targets=["q_proj"])
        layer = model.lm.model.layers[0].self_attn.q_proj
        torch.nn.init.ones_(layer.lora_B["default"].weight)
        x = torch.ones(1, 32)
        added.append((layer(x) - layer.get_base_layer()(x)).detach())
        assert torch.allclose(added[-1], layer.lora_A["default"](x).sum(-1, keepdim=True) * alpha / 2, atol=1e-5)
    assert torch.allclose(2 * added[0], added[1], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "target", "reason"),
    [
        ("llama", "lm_head", "lm_head .Linear. is, or may share its weights with, the embeddings"),
        ("qwen2", "lm_head", "lm_head .Linear. is, or may share its weights with, the embeddings"),
        ("llama", "embed_tokens", "embed_tokens .Embedding. is, or may share its weights with, the embeddings"),
        ("gpt2", "wpe", "wpe .Embedding. is, or may share its weights with, the embeddings"),
        ("llama", "mlp", "LlamaMLP. is not linear"),
        ("llama", "nowhere", "no layer of LlamaForCausalLM is called so"),
    ],
)
def test_targets_that_cannot_be_saved_are_refused_with_what_is_allowed(letters, family, target, reason):
    inner = {"gpt2": "c_attn"}.get(family, "q_proj")
    with pytest.raises(ValueError, match=rf"{reason}.*{inner}"):
        build(letters, family, targets=[inner, target])


def test_mistakes_are_named(letters, monkeypatch):
    model = ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT)
    with pytest.raises(ValueError, match="rank is 0"):
        add_lora(model, 0)
    with pytest.raises(ValueError, match="nowhere"):
        add_lora(model, 2, targets=["nowhere"])
    add_lora(model, 2)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(model, 2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'textgym\[lora\]'"):
        add_lora(ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT), 2)
