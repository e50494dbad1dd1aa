import copy

import pytest
import torch
from agent_kit import CONTEXT, FAMILIES, build_lm
from textgym_agents import ActorCritic, tiny_gpt2
from textgym_agents import head as head_module
from textgym_agents import model as model_module
from textgym_agents.model import load_lm
from textgym_agents.support import LogitRule
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)


def batch(count, prompt, response, vocab_size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (count, prompt + response), generator=generator)
    return ids, torch.full((count,), prompt), torch.ones(count, response, dtype=torch.bool)


@pytest.mark.parametrize("shape", FAMILIES)
def test_evaluation_equals_the_models_own_log_softmax(letters, shape):
    lm = build_lm(shape, len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    ids, prompt_lengths, mask = batch(3, 2, 8, len(letters))  # longer than the window of those that have one
    mask[1, 3:] = False
    logprobs, values, entropy = model(ids, prompt_lengths, mask)
    expected = lm(input_ids=ids).logits.log_softmax(-1)
    for b in range(3):
        for t in range(8):
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
    chunked = build_lm("mistral", len(letters))
    chunked.config.layer_types = ["chunked_attention"]
    with pytest.raises(ValueError, match="MistralForCausalLM is not supported: it has layers of kind 'chunked_attention'"):
        ActorCritic(chunked, letters, CONTEXT)
    sizes = {"vocab_size": len(letters), "hidden_size": 16, "num_hidden_layers": 1, "pad_token_id": 0}
    recurrent = MambaForCausalLM(MambaConfig(**sizes, state_size=4, bos_token_id=None, eos_token_id=None))
    with pytest.raises(ValueError, match="MambaForCausalLM is not supported: it keeps a recurrent state"):
        ActorCritic(recurrent, letters, CONTEXT)
    small = {"vocab_size": len(letters), "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    pair = T5ForConditionalGeneration(T5Config(**small, decoder_start_token_id=0))
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is not supported: it is an encoder-decoder"):
        ActorCritic(pair, letters, CONTEXT)


class TwoSidedCap(LlamaForCausalLM):
    """Does something after its head that no config speaks of."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = 30 * (out.logits / 30).tanh()
        return out


def test_what_follows_a_head_unspoken_is_refused_even_where_small_logits_hide_it(letters):
    lm = TwoSidedCap(build_lm("llama", len(letters)).config).eval()  # fresh weights: the cap changes logits by under 1e-4
    with pytest.raises(ValueError, match="TwoSidedCap is not supported: what follows its head is not in its config"):
        ActorCritic(lm, letters, CONTEXT)


def test_a_window_that_is_not_as_the_config_says_is_refused(letters):
    lm = build_lm("mistral", len(letters))
    lm.model.config = copy.deepcopy(lm.config)  # the model masks by its own config, the cache by that of the whole
    lm.config.sliding_window = 9
    with pytest.raises(ValueError, match="MistralForCausalLM is not supported: its sliding window is not as its config says"):
        ActorCritic(lm, letters, CONTEXT)


def test_soft_caps_and_factors_after_the_head_are_the_models_own(letters):
    for family, fields, rule in (
        ("gemma2", {}, LogitRule(1.0, 2.0)),
        ("cohere", {}, LogitRule(0.1, None)),
        ("granite", {}, LogitRule(0.25, None)),
        ("gemma3_text", {"final_logit_softcapping": 1.5}, LogitRule(1.0, 1.5)),
    ):
        lm = build_lm(family, len(letters), **fields)
        model = ActorCritic(lm, letters, CONTEXT)
        assert model.logit_rule == rule
        ids, at = torch.tensor([[2, 3, 4]]), torch.arange(3)[None]
        with torch.no_grad():
            assert torch.allclose(model.logits(model.hidden(ids, at)), lm(ids).logits, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_loads_from_a_folder_and_learns(letters, tmp_path, family, dtype):
    build_lm(family, len(letters) + 3).save_pretrained(tmp_path)
    lm = load_lm(str(tmp_path), dtype)
    assert lm.dtype == dtype
    model = ActorCritic(lm, letters, CONTEXT)
    ids, prompt_lengths, mask = batch(2, 2, 9, len(letters))  # longer than the window
    logprobs, values, entropy = model(ids, prompt_lengths, mask)
    assert logprobs.dtype == values.dtype == entropy.dtype == torch.float32
    (values.sum() - logprobs.sum()).backward()
    assert not lm.get_output_embeddings().weight.grad[len(letters) :].any()  # F28: the three beyond the tokenizer stay out
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model(ids, prompt_lengths, mask)[0].sum() > logprobs.sum()
    hidden = model.hidden(ids, torch.arange(ids.shape[1]).expand_as(ids))
    assert model.logits(hidden).shape[-1] == len(letters)


def test_attention_is_the_one_that_was_asked_for(letters, tmp_path):
    build_lm("llama", len(letters)).save_pretrained(tmp_path)
    assert load_lm(str(tmp_path), attn_implementation="eager").config._attn_implementation == "eager"
    assert load_lm(str(tmp_path)).config._attn_implementation == "sdpa"


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
