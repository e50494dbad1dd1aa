import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, LAYOUTS, SHAPES, build_lm, take_products_from_copies
from textgym_agents import ActorCritic, CausalLMPolicy


def make(letters, shape="gpt2", num_slots=4, **kwargs):
    return CausalLMPolicy(ActorCritic(build_lm(shape, len(letters)), letters, CONTEXT), num_slots, **kwargs)


def observe(texts):
    obs = np.full((len(texts), CONTEXT), -1)
    for row, text in zip(obs, texts, strict=True):
        row[: len(text)] = text
    return obs


def check(policy, texts, slots, step):
    """Log-probs and values of a step are those of a plain forward pass."""
    for i, slot in enumerate(slots):
        with torch.no_grad():
            logits = policy.model.lm(input_ids=torch.tensor([texts[slot]])).logits[0, -1]
        expected = (logits[: policy.model.vocab_size] / policy.temperature).log_softmax(-1)
        assert step.logprobs[i].item() == pytest.approx(expected[step.tokens[i]].item(), abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_logprobs_of_sampled_tokens_equal_a_plain_forward_through_refills_and_gaps(letters, shape):
    policy = make(letters, shape, num_slots=6, temperature=0.7)
    rng = np.random.default_rng(0)
    texts = {slot: rng.integers(len(letters), size=rng.integers(1, 6)).tolist() for slot in range(6)}
    for _ in range(60):
        slots = np.sort(rng.choice(list(texts), size=rng.integers(1, len(texts) + 1), replace=False))
        step = policy.act(observe([texts[slot] for slot in slots]), slots)
        check(policy, texts, slots, step)
        for slot, token in zip(slots.tolist(), step.tokens.tolist(), strict=True):
            texts[slot].append(token)
            if rng.random() < 0.1 and len(texts[slot]) < CONTEXT - 4:
                texts[slot] += rng.integers(len(letters), size=2).tolist()  # a reply, several tokens at once
            if len(texts[slot]) >= CONTEXT - 2 or rng.random() < 0.15:
                policy.reset_slots([slot])
                if rng.random() < 0.4 and len(texts) > 1:
                    del texts[slot]  # the slot stays empty for a while
                else:
                    texts[slot] = rng.integers(len(letters), size=rng.integers(1, 6)).tolist()
        for slot in range(6):
            if slot not in texts and rng.random() < 0.2:
                texts[slot] = rng.integers(len(letters), size=3).tolist()


def test_act_and_evaluate_agree_on_the_same_text(letters):
    policy = make(letters, "llama", num_slots=2, temperature=1.3)
    torch.nn.init.normal_(policy.model.value_head.weight)
    texts, logprobs, values = [[2, 3], [4, 5, 6]], [[], []], [[], []]
    for _ in range(6):
        step = policy.act(observe(texts), [0, 1])
        for i in (0, 1):
            texts[i].append(int(step.tokens[i]))
            logprobs[i].append(float(step.logprobs[i]))
            values[i].append(float(step.values[i]))
    ids = torch.from_numpy(observe(texts)).clamp(min=0)
    got = policy.evaluate(ids, torch.tensor([2, 3]), torch.ones(2, 6, dtype=torch.bool))
    assert torch.allclose(got[0], torch.tensor(logprobs), atol=1e-4)
    assert torch.allclose(got[1], torch.tensor(values), atol=1e-4)


def counted(policy, monkeypatch):
    """Count the tokens that the model runs."""
    counts, hidden = [], policy.model.policy_hidden

    def run(ids, *args):
        counts.append(ids.numel())
        return hidden(ids, *args)

    monkeypatch.setattr(policy.model, "policy_hidden", run)
    return counts


@pytest.mark.parametrize("shape", ["gpt2", "mistral"])
def test_slots_that_share_a_prompt_run_it_once(letters, shape, monkeypatch):
    monkeypatch.setattr("textgym_agents.policy.LEAST_SAVED", 1)
    monkeypatch.setattr("textgym_agents.prefix.LEAST_SAVED", 1)
    policy = make(letters, shape, num_slots=6)
    counts = counted(policy, monkeypatch)
    system = np.random.default_rng(0).integers(len(letters), size=12).tolist()
    # 1) a prefix of 12 tokens that all have, two equal texts: 12 + 3 x 2 tokens instead of 4 x 14
    texts = {0: [*system, 3, 4], 1: [*system, 5, 6], 2: [*system, 3, 4], 3: [*system, 7, 8]}
    check(policy, texts, [0, 1, 2, 3], policy.act(observe(list(texts.values())), [0, 1, 2, 3]))
    assert sum(counts) == 12 + 3 * 2
    # 2) two more that find it in the cache, beside the others that go on
    for slot, text in texts.items():
        text.append(slot)
    texts |= {4: [*system, 3, 4, 9], 5: [*system, 3, 9]}
    counts.clear()
    check(policy, texts, range(6), policy.act(observe(list(texts.values())), range(6)))
    assert sum(counts) <= 2 * 2 + 6
    # 3) all of them go on as if each had been run alone
    for slot, text in texts.items():
        text.append(slot + 2)
    check(policy, texts, range(6), policy.act(observe(list(texts.values())), range(6)))


def test_texts_carried_over_an_update_are_run_anew(letters):
    policy = make(letters)
    texts = {0: [2, 3, 4], 1: [5, 6]}
    for _ in range(2):
        step = policy.act(observe(list(texts.values())), [0, 1])
        for text, token in zip(texts.values(), step.tokens.tolist(), strict=True):
            text.append(token)
    with torch.no_grad():
        for parameter in policy.model.lm.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    policy.reset_slots([0, 1])
    check(policy, texts, [0, 1], policy.act(observe(list(texts.values())), [0, 1]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_new_texts_are_run_with_weights_that_changed_and_nothing_noted_it(letters, shape, layout, monkeypatch):
    take_products_from_copies(monkeypatch, LAYOUTS[layout])
    policy = make(letters, shape)
    policy.record_soon()
    optimizer = torch.optim.AdamW(policy.model.lm.parameters(), lr=0.3, fused=True)  # leaves versions as they were
    for _ in range(3):
        texts = {0: [2, 3, 4], 1: [5, 6]}
        for _ in range(3):
            step = policy.act(observe(list(texts.values())), [0, 1])
            check(policy, texts, [0, 1], step)
            for text, token in zip(texts.values(), step.tokens.tolist(), strict=True):
                text.append(token)
        policy.reset_slots([0, 1])
        policy.model.lm(input_ids=torch.tensor([texts[0]])).logits.square().mean().backward()
        optimizer.step()
    products = policy._decoder._products
    assert products is not None and (id(policy.model.lm.get_output_embeddings().weight), False) in products._copies


def test_lengths_that_are_told_are_not_read(letters):
    told, read = make(letters, seed=3), make(letters, seed=3)
    obs = observe([[2, 3], [4, 5, 6]])
    assert torch.equal(told.act(obs, [0, 1], np.array([2, 3])).tokens, read.act(obs, [0, 1]).tokens)


def test_log_probs_are_those_of_the_truncated_distribution(letters):
    policy = make(letters, num_slots=300, top_k=3)
    step = policy.act(observe([[2, 3]] * 300), np.arange(300))
    assert len(step.tokens.unique()) <= 3
    with torch.no_grad():
        best = policy.model.lm(input_ids=torch.tensor([[2, 3]])).logits[0, -1].topk(3)
    expected = dict(zip(best.indices.tolist(), best.values.log_softmax(-1).tolist(), strict=True))
    for token, logprob in zip(step.tokens.tolist(), step.logprobs.tolist(), strict=True):
        assert logprob == pytest.approx(expected[token], abs=1e-4)


def test_sampling_follows_the_distribution(letters):
    policy = make(letters, num_slots=4000)
    texts = [[2, 3]] * 4000
    step = policy.act(observe(texts), np.arange(4000))
    with torch.no_grad():
        probs = policy.model.lm(input_ids=torch.tensor([[2, 3]])).logits[0, -1].softmax(-1)
    share = torch.bincount(step.tokens, minlength=len(letters)) / 4000
    assert (share - probs).abs().max() < 4 * float((probs * (1 - probs) / 4000).max().sqrt())


def test_no_id_beyond_the_tokenizer_is_ever_sampled_F28(letters):
    lm = build_lm("gpt2", len(letters) + 50)
    with torch.no_grad():
        lm.transformer.wte.weight[len(letters) :] *= 50  # padding rows that a careless sampler would love
    policy = CausalLMPolicy(ActorCritic(lm, letters, CONTEXT), 500)
    step = policy.act(observe([[2]] * 500), np.arange(500))
    assert int(step.tokens.max()) < len(letters)
    assert torch.isfinite(step.logprobs).all()


def test_the_same_seed_samples_the_same_tokens_whatever_global_state(letters):
    out = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        out.append(make(letters, seed=5).act(observe([[2]] * 4), range(4)).tokens.tolist())
    before = torch.get_rng_state()
    make(letters, seed=6).act(observe([[2]] * 4), range(4))
    assert out[0] == out[1]
    assert torch.equal(before, torch.get_rng_state())


def test_a_text_that_fills_the_context_still_has_a_value(letters):
    policy = make(letters, num_slots=1)
    text = [2] * (CONTEXT - 1)
    policy.act(observe([text]), [0])
    step = policy.act(observe([[*text, 3]]), [0])
    check(policy, {0: [*text, 3]}, [0], step)


def test_forgetting_reset_slots_is_told(letters):
    policy = make(letters)
    policy.act(observe([[2, 3, 4]]), [1])
    with pytest.raises(ValueError, match="slot 1 has 2 tokens but 3 were seen before; call reset_slots"):
        policy.act(observe([[2, 3]]), [1])


def test_temperature_must_be_above_0(letters):
    with pytest.raises(ValueError, match="temperature is 0"):
        make(letters, temperature=0)


def test_more_slots_than_the_policy_has_are_named(letters):
    policy = make(letters, num_slots=2)
    policy.reset_slots(range(3))
    with pytest.raises(ValueError, match="slot 2 was asked for but the policy has 2 slots"):
        policy.act(observe([[2]] * 3), range(3))


def test_weights_that_are_nan_are_told_and_leave_nothing_behind(letters):
    policy = make(letters)
    good = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with torch.no_grad():
        policy.model.lm.transformer.wte.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        policy.act(observe([[2] * 9, [3] * 9]), [0, 1])
    policy.model.load_state_dict(good)
    texts = {0: [2] * 10, 1: [3] * 10}  # they go on: nothing of them may count as cached
    check(policy, texts, [0, 1], policy.act(observe(list(texts.values())), [0, 1]))
    policy.reset_slots([0, 1])
    texts = {0: [2, 3], 1: [3] * 8}  # the short text's columns hold what the NaN left
    check(policy, texts, [0, 1], policy.act(observe(list(texts.values())), [0, 1]))


def test_rows_that_could_not_be_moved_are_run_anew(letters, monkeypatch):
    policy = make(letters, num_slots=6)
    texts = {slot: [2 + slot, 3] for slot in range(6)}
    policy.act(observe(list(texts.values())), range(6))
    policy.reset_slots([0, 1, 2])
    left = {slot: [*texts[slot], 4] for slot in (3, 4, 5)}

    def fail(*args):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(policy._decoder.cache, "copy_rows", fail)
        with pytest.raises(torch.OutOfMemoryError):
            policy.act(observe(list(left.values())), [3, 4, 5])
    check(policy, left, [3, 4, 5], policy.act(observe(list(left.values())), [3, 4, 5]))


def test_a_text_longer_than_the_models_context_is_named(letters):
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, 8), 2)
    with pytest.raises(ValueError, match="slot 1 has 9 tokens but the model was made for 8; make ActorCritic"):
        policy.act(observe([[2] * 3, [2] * 9]), [0, 1])


@pytest.mark.parametrize("slots", [[], [1, 1], [-1], np.array([False, True])])
def test_slots_that_are_no_slots_are_refused(letters, slots):
    policy = make(letters)
    with pytest.raises(ValueError, match="slots are"):
        policy.act(observe([[2]] * max(1, len(slots)))[: len(slots)], slots)
