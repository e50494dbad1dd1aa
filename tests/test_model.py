import pytest
import torch
from agent_kit import CONTEXT, SHAPES, build_lm
from textgym_agents import ActorCritic, tiny_gpt2
from textgym_agents import head as head_module
from textgym_agents import model as model_module
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    CohereForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)


def batch(count, prompt, response, vocab_size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (count, prompt + response), generator=generator)
    return ids, torch.full((count,), prompt), torch.ones(count, response, dtype=torch.bool)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_equals_the_models_own_log_softmax(letters, shape):
    lm = build_lm(shape, len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    ids, prompt_lengths, mask = batch(3, 2, 5, len(letters))
    mask[1, 3:] = False
    logprobs, values, entropy = model(ids, prompt_lengths, mask)
    expected = lm(input_ids=ids).logits.log_softmax(-1)
    for b in range(3):
        for t in range(5):
            if not mask[b, t]:
                assert logprobs[b, t] == values[b, t] == entropy[b, t] == 0
                continue
            row = expected[b, 2 + t - 1]
            assert logprobs[b, t].item() == pytest.approx(row[ids[b, 2 + t]].item(), abs=1e-5)
            assert entropy[b, t].item() == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-4)
    assert not values.any()  # the value head starts at 0


def test_padding_changes_nothing_F04(letters):
    model = ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT)
    ids, prompt_lengths, mask = batch(2, 2, 4, len(letters))
    padded = torch.cat([ids, torch.full((2, 9), 5)], 1)
    wide = torch.cat([mask, torch.zeros(2, 9, dtype=torch.bool)], 1)
    for a, b in zip(model(ids, prompt_lengths, mask), model(padded, prompt_lengths, wide), strict=True):
        assert torch.allclose(a, b[:, :4], atol=1e-6)
        assert not b[:, 4:].any()


def test_chunks_give_the_same_numbers_and_gradients(letters, monkeypatch):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    ids, prompt_lengths, mask = batch(3, 2, 6, len(letters))
    results = []
    for plain, elements in ((True, 2**22), (True, 4 * len(letters)), (False, 2**22), (False, 4 * len(letters))):
        monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", elements)
        monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", elements)
        monkeypatch.setattr(model_module, "is_plain", lambda head, plain=plain: plain)
        model.zero_grad()
        logprobs, _, entropy = model(ids, prompt_lengths, mask)
        (logprobs.sum() + entropy.sum()).backward()
        results.append((logprobs.detach(), entropy.detach(), model.lm.transformer.wte.weight.grad.clone()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_logits_beyond_the_tokenizer_are_left_out_F28(letters):
    lm = build_lm("qwen2", len(letters) + 7)
    model = ActorCritic(lm, letters, CONTEXT)
    ids, prompt_lengths, mask = batch(2, 1, 4, len(letters))
    logprobs, _, _ = model(ids, prompt_lengths, mask)
    expected = lm(input_ids=ids).logits[..., : len(letters)].log_softmax(-1)
    assert logprobs[0, 0].item() == pytest.approx(expected[0, 0, ids[0, 1]].item(), abs=1e-5)
    assert model.logits(torch.zeros(1, 32)).shape == (1, len(letters))


def test_a_model_smaller_than_the_tokenizer_is_refused(letters):
    with pytest.raises(ValueError, match=f"has {len(letters) - 1} logits but the tokenizer has {len(letters)} tokens"):
        ActorCritic(build_lm("gpt2", len(letters) - 1), letters, CONTEXT)


def test_a_model_with_too_few_positions_is_refused(letters):
    with pytest.raises(ValueError, match="has 8 positions but the environment's context_length is 24"):
        ActorCritic(build_lm("gpt2", len(letters), context=8), letters, CONTEXT)


def test_kinds_that_are_not_supported_are_refused_with_the_reason(letters):
    sizes = {"vocab_size": len(letters), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    chunked = MistralForCausalLM(MistralConfig(**sizes, **special))
    chunked.config.layer_types = ["chunked_attention"]
    with pytest.raises(ValueError, match="MistralForCausalLM is not supported: it has layers of kind 'chunked_attention'"):
        ActorCritic(chunked, letters, CONTEXT)
    scaled = CohereForCausalLM(CohereConfig(**sizes, **special, logit_scale=0.1))
    with pytest.raises(ValueError, match="its head does more than one linear layer"):
        ActorCritic(scaled, letters, CONTEXT)


def test_the_model_stays_in_eval_mode_in_training_too(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)  # GPT-2's default config has dropout
    model.train()
    ids, prompt_lengths, mask = batch(2, 1, 4, len(letters))
    assert torch.equal(model(ids, prompt_lengths, mask)[0], model(ids, prompt_lengths, mask)[0])


@pytest.mark.parametrize("shape", ["gpt2", "llama"])  # AutoTokenizer gives every "qwen2" folder a Qwen2Tokenizer
def test_saved_policies_load_as_ordinary_models(letters, tmp_path, shape):
    model = ActorCritic(build_lm(shape, len(letters)), letters, CONTEXT)
    torch.nn.init.ones_(model.value_head.weight)
    model.save(tmp_path)
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert len(tokenizer) == len(letters)
    ids = torch.tensor([[2, 3, 4]])
    assert torch.allclose(lm(ids).logits, model.lm(ids).logits, atol=1e-6)
    assert list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.bin"))
    other = ActorCritic(build_lm(shape, len(letters), seed=1), letters, CONTEXT)
    other.load(tmp_path)
    assert torch.equal(other.value_head.weight, model.value_head.weight)
    assert torch.allclose(other.lm(ids).logits, model.lm(ids).logits, atol=1e-6)


def test_tiny_model_is_about_a_tenth_of_a_million_parameters_and_seeded():
    before = torch.get_rng_state()
    a, b, c = (tiny_gpt2(27, 17, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())  # global random state is left alone
    assert 90_000 < sum(p.numel() for p in a.parameters()) < 120_000
    assert torch.equal(a.transformer.wte.weight, b.transformer.wte.weight)
    assert not torch.equal(a.transformer.wte.weight, c.transformer.wte.weight)
