import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, SHAPES, build_lm
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents.decode import Decoder, Sampled, groups_by_length
from textgym_agents.model import ActorCritic
from textgym_agents.sampling import Sampling


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_groups_hold_every_row_once_and_waste_little(counts):
    counts = np.array(counts)
    groups = groups_by_length(counts)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(counts)))
    for group in groups:
        padded = counts[group].max() * len(group)
        assert padded - counts[group].sum() <= max(0.25 * padded, 128 + counts[group].max())


def test_equal_lengths_are_one_group_and_long_texts_keep_short_ones_apart():
    assert [len(group) for group in groups_by_length(np.full(50, 100))] == [50]
    assert [group.tolist() for group in groups_by_length(np.array([5, 900, 5, 880]))] == [[1, 3], [0, 2]]


@pytest.mark.parametrize("shape", [*SHAPES, "gemma3_text"])
def test_static_shapes_give_the_same_tokens_and_log_probs(letters, shape, monkeypatch):
    """Rows and columns rounded up, as CUDA graphs need them: what is added is never seen."""
    monkeypatch.setattr("textgym_agents.decode._COLUMNS", 7)
    model = ActorCritic(build_lm(shape, len(letters)), letters, CONTEXT)
    torch.nn.init.normal_(model.value_head.weight)
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
        assert torch.allclose(a, b, atol=1e-5)


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
