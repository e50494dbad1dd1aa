import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, CausalLMPolicy
from transformers import AutoModel


def build(letters, family="gpt2", value_family="llama"):
    value_lm = build_lm(value_family, len(letters), seed=1)
    model = ActorCritic(build_lm(family, len(letters)), letters, CONTEXT, value_lm)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    return model, value_lm


def own_values(model, value_lm, text):
    """The definition: the value head on the value model's own last state."""
    states = value_lm.base_model(input_ids=torch.tensor([text])).last_hidden_state
    return (states @ model.value_head.weight.T + model.value_head.bias)[0, :, 0]


@pytest.mark.parametrize(("family", "value_family"), [("gpt2", "llama"), ("mistral", "mistral"), ("gemma2", "gemma3_text")])
def test_values_are_the_second_models_and_logits_the_firsts(letters, family, value_family):
    model, value_lm = build(letters, family, value_family)
    ids = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9, 10]])
    logprobs, values, _ = model(ids, torch.tensor([2]), torch.ones(1, 7, dtype=torch.bool))
    assert torch.allclose(values[0], own_values(model, value_lm, ids[0].tolist())[1:-1], atol=1e-5)
    expected = model.lm(input_ids=ids).logits.log_softmax(-1)[0, 1:-1].gather(1, ids[0, 2:, None])[:, 0]
    assert torch.allclose(logprobs[0], expected, atol=1e-5)


def test_values_while_acting_come_through_a_cache_of_their_own(letters):
    """Ragged prompts, decode, a slot that ends and begins anew, and rows that are moved together."""
    model, value_lm = build(letters)
    policy = CausalLMPolicy(model, 4)
    texts = {slot: [2 + slot] * (slot + 1) for slot in range(4)}
    for step in range(6):
        if step == 3:
            policy.reset_slots([0, 1, 2])
            texts = {3: texts[3]}  # the other three are over: its row is moved to the front
        if step == 5:
            texts[0] = [5]
        obs = np.full((len(texts), CONTEXT), -1)
        for row, text in enumerate(texts.values()):
            obs[row, : len(text)] = text
        out = policy.act(obs, list(texts))
        for row, text in enumerate(texts.values()):
            assert out.values[row].item() == pytest.approx(own_values(model, value_lm, text)[-1].item(), abs=1e-4)
            text.append(int(out.tokens[row]))


def test_the_value_loss_does_not_reach_the_language_model(letters):
    model, _ = build(letters)
    ids = torch.tensor([[2, 3, 4, 5]])
    model(ids, torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool))[1].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.lm.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.value_lm.parameters())


def test_a_saved_value_model_is_loaded_and_an_ordinary_model(letters, tmp_path):
    model, _ = build(letters)
    model.save(tmp_path)
    other = ActorCritic(build_lm("gpt2", len(letters), seed=3), letters, CONTEXT, build_lm("llama", len(letters), seed=4))
    other.load(tmp_path)
    text = (torch.tensor([[2, 3, 4, 5]]), torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool))
    for a, b in zip(model(*text), other(*text), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert AutoModel.from_pretrained(tmp_path / "value").config.model_type == "llama"
    with pytest.raises(ValueError, match="holds a value model but this model has none"):
        ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT).load(tmp_path)


def test_values_can_start_from_the_language_models_weights(letters):
    model, _ = build(letters, "gpt2", "gpt2")
    assert not torch.equal(model.value_lm.wte.weight, model.lm.transformer.wte.weight)
    model.start_values_from_policy()
    assert torch.equal(model.value_lm.wte.weight, model.lm.transformer.wte.weight)
    assert model.value_lm.wte.weight is not model.lm.transformer.wte.weight


def test_value_models_that_cannot_read_the_same_masks_are_refused(letters):
    lm = build_lm("gpt2", len(letters))
    with pytest.raises(ValueError, match="the value model's sliding windows is"):
        ActorCritic(lm, letters, CONTEXT, build_lm("mistral", len(letters)))
    with pytest.raises(ValueError, match=r"dtype is torch.bfloat16 but the language model's is torch.float32"):
        ActorCritic(lm, letters, CONTEXT, build_lm("gpt2", len(letters)).bfloat16())
    with pytest.raises(ValueError, match="embeddings but the tokenizer has"):
        ActorCritic(lm, letters, CONTEXT, build_lm("gpt2", len(letters) - 1))
