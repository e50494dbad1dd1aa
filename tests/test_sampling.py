"""Sampling: the distribution function by hand, top-k and top-p against transformers' own, and the log-probs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
