"""Sampling: the distribution function by hand, top-k and top-p against transformers' own, and the log-probs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents import sampling as sampling_module
from textgym_agents.sampling import Sampling, sample, truncate
from transformers import TopKLogitsWarper, TopPLogitsWarper

QUARTERS = torch.tensor([[0.25, 0.5, 0.0, 0.25]]).log()


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 3), (1.0, 3)])
def test_a_uniform_number_picks_the_token_whose_share_it_falls_into(uniform, token):
    tokens, logprobs = sample(QUARTERS, torch.tensor([uniform]), Sampling())
    assert tokens.tolist() == [token]  # token 2, whose probability is 0, is never picked
    assert logprobs[0] == pytest.approx(float(QUARTERS[0, token]), abs=1e-6)


def test_temperature_sharpens():
    _, logprobs = sample(QUARTERS, torch.tensor([0.5]), Sampling(temperature=0.5))
    assert logprobs.exp().item() == pytest.approx(0.25 / (0.25 + 0.0625 + 0.0625))


logit_tables = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6), min_size=1, max_size=4)


@given(logit_tables, st.integers(1, 8))
def test_top_k_equals_transformers(rows, k):
    logits = torch.tensor(rows)
    assert torch.equal(truncate(logits, k, 1.0), TopKLogitsWarper(k)(None, logits))


@given(st.permutations([0.4, 0.25, 0.15, 0.1, 0.07, 0.03]), st.sampled_from([0.01, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99]))
def test_top_p_equals_transformers(probs, p):
    logits = torch.tensor([probs]).log()
    assert torch.equal(truncate(logits, None, p), TopPLogitsWarper(p)(None, logits))


def test_top_p_holds_of_what_top_k_left():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert truncate(logits, 2, 0.5).isinf().tolist() == [[False, True, True, True]]  # .4 / .7 is .57
    assert truncate(logits, None, 0.5).isinf().tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_k=3), Sampling(top_p=0.8), Sampling(1.5, 5, 0.6)])
def test_frequencies_and_log_probs_are_those_of_the_distribution_sampled_from(sampling):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 8, generator=generator).expand(20_000, -1)
    tokens, logprobs = sample(logits, torch.rand(20_000, generator=generator), sampling)
    expected = truncate(logits[:1] / sampling.temperature, sampling.top_k, sampling.top_p).softmax(-1)[0]
    assert torch.allclose(logprobs.exp(), expected[tokens], atol=1e-5)
    share = torch.bincount(tokens, minlength=8) / 20_000
    assert (share - expected).abs().max() < 4 * (expected * (1 - expected) / 20_000).max().sqrt()
    assert not share[expected == 0].any()


def test_logits_that_are_not_finite_give_no_token():
    tokens, _ = sample(torch.tensor([[0.0, torch.nan, 0.0]]), torch.tensor([0.5]), Sampling())
    assert tokens.tolist() == [3]


@pytest.fixture
def in_blocks(monkeypatch):
    """Let small tables be drawn from in blocks too."""
    monkeypatch.setattr(sampling_module, "_LARGE", 0)


@pytest.mark.usefixtures("in_blocks")
@given(st.integers(1, 300), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 0.99]), st.booleans())
def test_blocks_of_tokens_draw_what_one_table_draws(size, seed, forbidden, uneven):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, size, generator=generator) * (20 if uneven else 1)
    allowed = torch.rand(50, size, generator=generator) >= forbidden
    allowed[:, seed % size] = True
    uniforms = torch.rand(50, generator=generator)
    uniforms[:3] = torch.tensor([0.0, 1 - 2**-24, 1.0])
    tokens, logprobs = sample(logits, uniforms, Sampling(), allowed)
    expected = logits.masked_fill(~allowed, -torch.inf).double().log_softmax(-1)
    chosen = expected.gather(1, tokens[:, None]).squeeze(1)
    assert torch.allclose(logprobs.double(), chosen, atol=1e-5, rtol=1e-5)  # finite: no token of probability 0
    beyond = expected.exp().cumsum(-1)
    before = beyond - expected.exp()
    within = torch.stack([table.gather(1, tokens[:, None]).squeeze(1) for table in (before, beyond)])
    assert (uniforms > within[0] - 1e-5).all() and (uniforms < within[1] + 1e-5).all()


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("size", [128, 129, 400])
def test_in_blocks_a_share_that_rounding_puts_past_a_block_still_gets_a_token_with_probability(size):
    for last in (0, 1, size // 2, size - 1):  # the only token, or the last one beside 50 others
        logits = torch.full((1, size), -torch.inf)
        logits[0, last] = 0.0
        many = torch.linspace(0, 1, 4096)
        assert (sample(logits.expand(4096, -1), many, Sampling())[0] == last).all()
        logits[0, : min(last, 50)] = torch.linspace(-3, 3, min(last, 50))
        tokens, logprobs = sample(logits.expand(4096, -1), many, Sampling())
        assert logprobs.isfinite().all() and tokens.max() == last


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 70, 129])
def test_in_blocks_too_logits_that_are_not_finite_give_no_token(wrong, place):
    logits = torch.zeros(2, 130)
    logits[1, place] = wrong
    tokens, _ = sample(logits, torch.tensor([0.302, 0.302]), Sampling())
    assert tokens[0] == 39 and tokens[1] == 130
    assert sample(torch.full((1, 130), -torch.inf), torch.tensor([0.3]), Sampling())[0].tolist() == [130]


def test_a_share_just_below_a_blocks_sum_stays_among_its_tokens_though_two_sums_round_differently():
    weights = torch.rand(20_000, 128, generator=torch.Generator().manual_seed(0))
    weights[:, 100:] = 0
    tokens, chosen, _ = sampling_module._draw_in_blocks(weights, torch.full((20_000, 1), 1 - 2**-24))
    assert tokens.max() == 99 and chosen.min() > 0


def test_frequencies_over_a_large_table_are_its_probabilities():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, 1000, generator=generator)  # 1,000 is no multiple of a block
    tokens = sample(logits.expand(50_000, -1), torch.rand(50_000, generator=generator), Sampling())[0]
    expected = 50_000 * logits.double().softmax(-1)[0].numpy()
    counts = np.bincount(tokens.numpy(), minlength=1000)
    often = expected > 20
    chi = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert chi < often.sum() + 4 * np.sqrt(2 * often.sum())


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_distributions_that_are_none_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*; it must be"):
        Sampling(**wrong)


def test_only_top_k_and_top_p_truncate():
    assert not Sampling(0.5).truncates
    assert Sampling(top_k=5).truncates
    assert Sampling(top_p=0.9).truncates


def test_logits_are_written_over_only_on_request():
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(5, 40, generator=generator), torch.rand(5, generator=generator)
    before = logits.clone()
    expected = sample(logits, uniforms, Sampling())
    assert torch.equal(logits, before)
    given = sample(logits, uniforms, Sampling(), overwrite=True)
    assert all(torch.equal(one, other) for one, other in zip(expected, given, strict=True))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf")])
def test_one_call_draws_what_the_operations_one_by_one_draw(overwrite, wrong, monkeypatch):
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    logits[0, 0] = -torch.inf  # which a random number of 0 must not give
    if wrong is not None:
        logits[2, 3] = wrong
    uniforms, figures = torch.linspace(0, 0.999, 7), []
    for scripted in (sampling_module._scripted(), None):
        monkeypatch.setattr(sampling_module, "_scripted", lambda scripted=scripted: scripted)
        given_ = logits.clone()
        figures.append(sample(given_, uniforms, Sampling(0.7), overwrite=overwrite))
        assert overwrite or torch.equal(given_.nan_to_num(), logits.nan_to_num())
        assert figures[-1][0][0] > 0
    for one, other in zip(*figures, strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_a_torch_without_torchscript_draws_all_the_same(monkeypatch):
    monkeypatch.delattr(torch.jit, "CompilationUnit")
    sampling_module._scripted.cache_clear()
    try:
        assert sampling_module._scripted() is None
        assert sample(torch.zeros(1, 4), torch.tensor([0.6]), Sampling())[0].tolist() == [2]
    finally:
        sampling_module._scripted.cache_clear()
