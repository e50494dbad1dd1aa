import threading

import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, SHAPES, build_lm
from textgym_agents import decode
from textgym_agents.decode import Decoder, Sampled
from textgym_agents.model import ActorCritic
from textgym_agents.sampling import Sampling
from textgym_agents.threads import side_by_side


@pytest.mark.parametrize("shape", [*SHAPES, "gemma3_text"])
def test_static_shapes_give_the_same_tokens_and_log_probs(letters, shape, monkeypatch):
    """Rows and columns rounded up, as CUDA graphs need them: what is added is never seen."""
    monkeypatch.setattr("textgym_agents.decode._COLUMNS", 7)
    model = ActorCritic(build_lm(shape, len(letters)), letters, CONTEXT)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    results = []
    for static in (False, True):
        decoder = Decoder(model, 11, Sampling(), static)
        generator = torch.Generator().manual_seed(0)
        ids, first, count = (
            torch.randint(len(letters), (3, 4), generator=generator),
            torch.zeros(3).long(),
            torch.tensor([4, 2, 3]),
        )
        with torch.no_grad():
            states = decoder.several(torch.arange(3), ids, first, count, 4)
            figures = [decoder.sample(states, torch.rand(3, generator=generator))]
            lengths = count.clone()
            for _ in range(6):
                rows = decoder.rows_for(3)
                assert rows == (8 if static else 3)
                at = torch.full((rows,), decoder.spare)
                at[:3] = lengths
                tokens = torch.zeros(rows, dtype=torch.int64)
                tokens[:3] = figures[-1].tokens[:3]
                held = np.append(lengths.numpy() + 1, np.zeros(rows - 3, dtype=np.int64))
                uniforms = torch.rand(3, generator=generator)
                back = decoder.one_each(tokens, at, held, torch.tensor([2, 0, 1]), uniforms[[2, 0, 1]])
                figures.append(Sampled(*(figure[[1, 2, 0]] for figure in back)))
                lengths += 1
        results.append([torch.cat([getattr(step, name)[:3] for step in figures]) for name in ("tokens", "logprobs", "values")])
    (tokens, *numbers), (static_tokens, *static_numbers) = results
    assert torch.equal(tokens, static_tokens)
    for a, b in zip(numbers, static_numbers, strict=True):
        assert torch.allclose(a, b, atol=1e-4)  # values up to 40


def test_static_rows_never_exceed_the_cache(letters):
    decoder = Decoder(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 11, Sampling(), static=True)
    assert [decoder.rows_for(n) for n in (1, 8, 9, 11)] == [8, 8, 11, 11]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_give_the_same_tokens_as_plain_passes(letters):
    results = []
    for static in (False, True):
        model = ActorCritic(build_lm("llama", len(letters)).cuda(), letters, CONTEXT)
        decoder = Decoder(model, 8, Sampling(), static)
        ids = torch.randint(len(letters), (8, 3), generator=torch.Generator().manual_seed(0)).cuda()
        rows, uniforms = torch.arange(8).cuda(), torch.linspace(0.05, 0.95, 8).cuda()
        with torch.no_grad():
            tokens = decoder.sample(decoder.several(rows, ids, 0 * rows, 0 * rows + 3, 3), uniforms).tokens
            for length in range(3, 15):
                tokens = decoder.one_each(tokens, 0 * rows + length, np.full(8, length + 1), rows, uniforms).tokens
        results.append(tokens.tolist())
    assert results[0] == results[1]


def test_what_a_hook_keeps_of_the_heads_output_is_not_written_over(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    decoder, kept = Decoder(model, 4, Sampling()), []
    states, uniforms = torch.randn(4, model.policy_size, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.5)
    with torch.no_grad():
        expected = decoder.sample(states, uniforms)
        model.lm.lm_head.register_forward_hook(lambda module, args, output: kept.append(output))
        given_ = decoder.sample(states, uniforms)
        assert torch.equal(kept[0][:, : model.vocab_size], model.logits(states))
    assert all(torch.equal(one, other) for one, other in zip(expected, given_, strict=True))


def _grown(decoder, model, lengths, halved, monkeypatch, recorded=False, late=False):
    """Fill rows with texts of ``lengths`` tokens (0: none), then add a token to each, and new texts to those that had none.

    ``late``: random numbers are drawn while the pass runs, and what it need not read any more is written over.
    """
    monkeypatch.setattr(decode, "halves_pay", lambda products: halved)
    n, generator = len(lengths), torch.Generator().manual_seed(0)
    texts = [torch.randint(model.vocab_size, (max(1, length),), generator=generator) for length in lengths]
    zero = torch.zeros(1, dtype=torch.int64)
    for row, text in enumerate(texts):
        decoder.several(zero + row, text[None], zero, zero + len(text), len(text))
    live = np.array(lengths) > 0
    columns = torch.tensor([length if length else decoder.spare for length in lengths])
    held = np.where(live, np.array(lengths) + 1, 0)
    if recorded:
        decoder.record_soon()
        decoder._one_token(torch.zeros(n).long(), columns, held)
        assert decoder._recording is not None
    rows = torch.from_numpy(np.flatnonzero(live)[::-1].copy())
    uniforms = torch.rand(len(rows), generator=generator)
    at, tokens, asked = columns.clone(), held.copy(), []

    def draw():
        at.fill_(-7)
        tokens.fill(-7)
        asked.append(1)
        return uniforms

    step = decoder.one_each(torch.arange(n) % model.vocab_size, at, tokens, rows, draw if late else uniforms)
    assert len(asked) == late
    new = np.flatnonzero(~live)
    counts = [2 + i % 3 for i in range(len(new))]
    fresh = torch.randint(model.vocab_size, (sum(counts),), generator=generator)
    later = torch.where(columns == decoder.spare, columns, columns + 1)
    where = torch.from_numpy(np.repeat(new, counts))
    states = decoder.mixed(torch.ones(n).long(), later, np.where(live, held + 1, 0), fresh, where, counts)
    keep = np.concatenate([np.flatnonzero(live), n + np.arange(sum(counts))])
    return [*step, states[torch.from_numpy(keep)]]


@pytest.mark.parametrize("lengths", [[3, 4, 5, 6] * 4 + [0, 17, 18, 0], [0] * 14 + [9] * 6], ids=["long", "half without texts"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_halves_give_what_the_whole_gives_and_recorded_ones_bit_for_bit(letters, shape, lengths, monkeypatch):
    model = ActorCritic(build_lm(shape, len(letters)), letters, CONTEXT)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    figures = []
    for halved, recorded in ((False, False), (True, False), (True, True)):
        decoder = Decoder(model, len(lengths), Sampling())
        figures.append(_grown(decoder, model, lengths, halved, monkeypatch, recorded))
    for whole, plain, recorded in zip(*figures, strict=True):
        assert torch.allclose(whole.double(), plain.double(), atol=1e-4)
        assert torch.equal(plain, recorded)


@pytest.mark.parametrize(("halved", "recorded", "at_once"), [(True, True, 4), (True, False, 1), (False, True, 0)])
@torch.no_grad()
def test_recorded_halves_and_sampling_run_at_once(letters, halved, recorded, at_once, monkeypatch):
    calls = []
    monkeypatch.setattr(decode, "side_by_side", lambda *parts: (calls.append(parts), side_by_side(*parts))[1])
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    _grown(Decoder(model, 17, Sampling()), model, [4] * 16 + [0], halved, monkeypatch, recorded)
    assert len(calls) == at_once  # the pass that is recorded, one of a token each, what it samples, and one with a new text


def test_what_autocast_gradients_or_a_hook_touch_is_not_halved(letters, monkeypatch):
    monkeypatch.setattr(decode, "halves_pay", lambda products: True)
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    decoder = Decoder(model, 17, Sampling())
    with torch.no_grad():
        _grown(decoder, model, [4] * 16 + [0], True, monkeypatch, recorded=True)
    assert not decoder._pays(16, 16) and decoder._usable() is None  # gradients are on
    with torch.no_grad():
        assert decoder._pays(16, 16) and not decoder._pays(15, 15) and decoder._usable() is not None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not decoder._pays(16, 16) and decoder._usable() is None
    eager = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    eager.lm.config._attn_implementation = "eager"
    with torch.no_grad():
        assert not Decoder(eager, 16, Sampling())._pays(16, 16)
    threads = []
    decoder.model.lm.lm_head.register_forward_hook(lambda *args: threads.append(threading.get_ident()))
    with torch.no_grad():
        decoder.sample(torch.zeros(16, decoder.model.policy_size), torch.zeros(16))
    assert threads == [threading.get_ident()]


@torch.no_grad()
def test_a_head_of_many_tokens_is_not_read_twice(letters, monkeypatch):
    monkeypatch.setattr(decode, "halves_pay", lambda products: True)
    decoder = Decoder(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 16, Sampling())
    states, uniforms = torch.randn(16, decoder.model.policy_size), torch.rand(16)
    sizes = []
    inner = decoder._draw
    monkeypatch.setattr(decoder, "_draw", lambda *given: (sizes.append(len(given[1])), inner(*given))[1])
    first = decoder.sample(states, uniforms)
    monkeypatch.setattr(decode, "_LARGEST_HEAD", decoder.model.lm.lm_head.weight.numel() - 1)
    second = decoder.sample(states, uniforms)
    assert sorted(sizes) == [8, 8, 16]
    assert torch.equal(first.tokens, second.tokens) and torch.allclose(first.logprobs, second.logprobs, atol=1e-5)


@pytest.mark.parametrize("kind", ["whole", "halves", "recorded whole", "recorded halves"])
@torch.no_grad()
def test_random_numbers_may_be_drawn_while_the_pass_runs(letters, kind, monkeypatch):
    model = ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT)
    results = []
    for late in (False, True):
        decoder = Decoder(model, 16, Sampling())
        halved, recorded = "halves" in kind, "recorded" in kind
        with monkeypatch.context() as patch:
            results.append(_grown(decoder, model, [3, 0, 5, 6] * 4, halved, patch, recorded, late))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@torch.no_grad()
def test_random_numbers_are_drawn_before_the_other_half_is_waited_for(letters, monkeypatch):
    model, events = ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT), []
    decoder, rows = Decoder(model, 17, Sampling()), torch.arange(16)
    _grown(decoder, model, [4] * 16 + [0], True, monkeypatch, recorded=True)
    noted = lambda *parts: (events.append("begun"), side_by_side(*parts), events.append("done"))[1]  # noqa: E731
    monkeypatch.setattr(decode, "side_by_side", noted)
    draw = lambda: (events.append("drawn"), torch.full((16,), 0.5))[1]  # noqa: E731
    decoder.one_each(torch.ones(16).long(), torch.full((16,), 4), np.full(16, 5), rows, draw)
    assert events[:3] == ["begun", "drawn", "done"]
