"""Packed, sorted and padded texts: the same numbers and the same gradients, for every layer kind."""

import pytest
import torch
from agent_kit import CONTEXT, FAMILIES, build_lm
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents import ActorCritic
from textgym_agents.packing import first_fit, lay_out, micro_batches, packs_exactly

LENGTHS = [11, 3, 24, 9, 5, 7, 14, 2]
PROMPTS = [2, 1, 3, 4, 1, 2, 2, 1]


def texts(vocab_size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (len(LENGTHS), max(LENGTHS)), generator=generator)
    lengths, prompts = torch.tensor(LENGTHS), torch.tensor(PROMPTS)
    mask = torch.arange(int((lengths - prompts).max())) < (lengths - prompts)[:, None]
    mask[2, 5:9] = False  # written by the environment
    return ids, lengths, prompts, mask


def evaluate(model, how, max_tokens):
    """Logprobs, values, entropies (E, T) and the gradient of a weighting of them that tells cells apart."""
    ids, lengths, prompts, mask = texts(model.vocab_size)
    weights = torch.linspace(-1, 1, mask.numel()).reshape(mask.shape)
    model.zero_grad()
    tables = [torch.zeros(mask.shape) for _ in range(3)]
    for part in micro_batches(torch.arange(len(ids)), lengths, how, max_tokens):
        width = int(lengths[part.texts].max())
        out = model(ids[part.texts, :width], prompts[part.texts], mask[part.texts], 0.7, part.layout)
        sum((x * weights[part.texts]).sum() for x in out).backward()
        for table, x in zip(tables, out, strict=True):
            table[part.texts] = x.detach()
    return tables, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_sorted_and_padded_texts_have_the_same_numbers_and_gradients(letters, family):
    model = ActorCritic(build_lm(family, len(letters)), letters, CONTEXT)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(1))
    tables, grads = evaluate(model, "padded", 10**6)
    assert packs_exactly(model)
    for how, max_tokens in (("packed", 10**6), ("packed", 30), ("sorted", 10**6), ("sorted", 30), ("padded", 50)):
        others, other_grads = evaluate(model, how, max_tokens)
        for a, b in zip(tables, others, strict=True):
            assert torch.allclose(a, b, atol=1e-5), (how, float((a - b).abs().max()))
        assert grads.keys() == other_grads.keys()
        for name, grad in grads.items():
            assert torch.allclose(grad, other_grads[name], atol=1e-5 * max(1.0, float(grad.abs().max()))), (how, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_packed_texts_equal_the_models_own(letters, family):
    lm = build_lm(family, len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    ids, _, _, _ = texts(len(letters))
    layout = lay_out([[2], [0, 3], [4, 1, 5]], LENGTHS[:6], ids.device)
    with torch.no_grad():
        rows = model.hidden(layout.place(ids), layout.positions, layout.masks(model.windows, torch.float32))
        packed = model.logits(rows).flatten(0, 1)
        for text in range(6):
            expected = lm(input_ids=ids[text : text + 1, : LENGTHS[text]]).logits[0]
            start = int(layout.starts[text])
            assert torch.allclose(packed[start : start + LENGTHS[text]], expected, atol=1e-5)


def test_first_fit_decreasing_by_hand():
    assert first_fit([3, 9, 2, 7, 6, 1], 10) == [[1, 5], [3, 0], [4, 2]]
    assert first_fit([4], 4) == [[0]]


def test_a_layout_by_hand():
    layout = lay_out([[1], [0, 2]], [2, 4, 1], torch.device("cpu"))
    assert layout.text.tolist() == [[1, 1, 1, 1], [0, 0, 2, -1]]
    assert layout.positions.tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert layout.starts.tolist() == [4, 0, 6]
    ids = torch.tensor([[10, 11, 0, 0], [20, 21, 22, 23], [30, 0, 0, 0]])
    assert layout.place(ids).tolist() == [[20, 21, 22, 23], [10, 11, 30, 10]]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 200), st.sampled_from(["packed", "sorted", "padded"])
)
def test_every_text_is_in_exactly_one_pass_and_passes_keep_their_bound(lengths, max_tokens, how):
    counts = torch.tensor([99, *lengths])  # text 0 is not in this minibatch
    chosen = torch.arange(1, len(counts))
    parts = micro_batches(chosen, counts, how, max_tokens)
    assert sorted(torch.cat([part.texts for part in parts]).tolist()) == chosen.tolist()
    for part in parts:
        longest = int(counts[part.texts].max())
        cells = len(part.texts) * longest
        if part.layout is not None:
            cells = part.layout.text.numel()
            assert part.layout.text.shape[1] <= max(lengths)
            held = torch.bincount(part.layout.text[part.layout.text >= 0], minlength=len(part.texts))
            assert held.tolist() == counts[part.texts].tolist()
        assert cells <= max(max_tokens, max(lengths))


@pytest.mark.parametrize("which", ["policy_hidden", "value_hidden"])
def test_a_model_that_lets_texts_of_a_row_mix_is_found_out(letters, which):
    lm = build_lm("gpt2", len(letters))
    model = ActorCritic(lm, letters, CONTEXT, build_lm("gpt2", len(letters), seed=1) if which == "value_hidden" else None)
    run = getattr(model, which)
    causal = torch.full((10, 10), torch.finfo(torch.float32).min).triu(1)[None, None]
    assert packs_exactly(model)

    def sees_all(ids, positions, mask=None):
        return run(ids, positions, causal[..., : ids.shape[1], : ids.shape[1]])

    def counts_on(ids, positions, mask=None):
        return run(ids, torch.arange(ids.shape[1])[None], mask)

    for broken in (sees_all, counts_on):
        setattr(model, which, broken)
        assert not packs_exactly(model)
