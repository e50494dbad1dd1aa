"""The head's own backward pass: against autograd, finite differences, and what it holds in memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents import head as head_module
from textgym_agents.head import is_plain, token_logprobs
from torch import nn


def build(k, hidden, rows, vocab_size, bias=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = nn.utils.skip_init(nn.Linear, hidden, rows, bias=bias, dtype=dtype)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
    states = torch.randn(k, hidden, generator=generator).to(dtype).requires_grad_()
    return head, states, torch.randint(vocab_size, (k,), generator=generator)


def plain(states, head, tokens, vocab_size, temperature=1.0):
    """What autograd makes of the textbook's lines."""
    logprobs = (head(states)[:, :vocab_size].to(torch.promote_types(states.dtype, torch.float32)) / temperature).log_softmax(-1)
    return logprobs.gather(-1, tokens[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)


def gradients(function, head, states, *args, entropy=True):
    head.zero_grad()
    states.grad = None
    logprobs, entropies = function(states, head, *args)
    weights = torch.linspace(-1, 2, len(states), dtype=logprobs.dtype)
    loss = (logprobs * weights).sum() + ((entropies * weights.flip(0)).sum() if entropy else 0)
    loss.backward()
    return [logprobs.detach(), entropies.detach(), states.grad.clone(), *(p.grad.clone() for p in head.parameters())]


@given(
    k=st.integers(1, 9),
    hidden=st.integers(1, 5),
    vocab_size=st.integers(1, 7),
    padding=st.integers(0, 3),
    bias=st.booleans(),
    entropy=st.booleans(),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    chunk=st.integers(1, 70),
)
def test_numbers_and_gradients_are_those_of_autograd(k, hidden, vocab_size, padding, bias, entropy, temperature, chunk):
    head, states, tokens = build(k, hidden, vocab_size + padding, vocab_size, bias)
    expected = gradients(plain, head, states, tokens, vocab_size, temperature, entropy=entropy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "CHUNK_ELEMENTS", chunk)
        got = gradients(token_logprobs, head, states, tokens, vocab_size, temperature, entropy=entropy)
    for a, b in zip(expected, got, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    for gradient in got[3:]:
        assert not gradient[vocab_size:].any()  # rows beyond the tokenizer's


def test_an_entropy_coefficient_of_0_changes_no_gradient():
    head, states, tokens = build(4, 3, 6, 6)
    found = []
    for coefficient in (0.0, None):
        logprobs, entropies = token_logprobs(states, head, tokens, 6)
        loss = logprobs.sum() + (0.0 if coefficient is None else (coefficient * entropies).sum())
        found.append(torch.autograd.grad(loss, [states, head.weight]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("chunk", [12, 1000])
def test_gradients_are_finite_differences(monkeypatch, chunk):
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", chunk)
    head, states, tokens = build(5, 3, 7, 6, bias=True)

    def function(states, weight, bias):
        return head_module._TokenLogprobs.apply(states, weight, bias, tokens, 6, 0.8)

    assert torch.autograd.gradcheck(function, (states, head.weight, head.bias))


def test_a_token_of_probability_0_has_finite_gradients():
    head, states, tokens = build(4, 3, 5, 5, dtype=torch.float32)
    with torch.no_grad():
        head.weight[2] = -1e4 * states[0].sign()
    tokens[0] = 0
    for tensor in gradients(token_logprobs, head, states, tokens, 5):
        assert torch.isfinite(tensor).all()


def test_a_bf16_head_has_its_softmax_in_float32():
    head, states, tokens = build(6, 16, 40, 40, dtype=torch.bfloat16)
    expected = gradients(plain, head, states, tokens, 40)
    got = gradients(token_logprobs, head, states, tokens, 40)
    assert got[0].dtype is torch.float32 and got[2].dtype is got[3].dtype is torch.bfloat16
    for a, b in zip(expected, got, strict=True):
        assert torch.allclose(a.float(), b.float(), atol=0.02 * float(a.abs().max()))
    assert torch.allclose(expected[0], got[0], atol=1e-6)  # the same products, the same softmax


def test_autocast_multiplies_in_bf16_and_sums_gradients_into_float32_weights():
    head, states, tokens = build(6, 16, 40, 40, dtype=torch.float32)
    exact = gradients(token_logprobs, head, states, tokens, 40)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(token_logprobs, head, states, tokens, 40)
    assert not torch.equal(exact[0], got[0])
    for a, b in zip(exact, got, strict=True):
        assert a.dtype is b.dtype is torch.float32
        assert torch.allclose(a, b, atol=0.05 * float(a.abs().max()))


def test_tied_weights_get_both_gradients():
    head, _, tokens = build(5, 4, 6, 6)
    ids = torch.arange(5) % 6
    both = []
    for function in (plain, token_logprobs):
        head.zero_grad()
        function(nn.functional.embedding(ids, head.weight), head, tokens, 6)[0].sum().backward()
        both.append(head.weight.grad.clone())
    assert torch.allclose(*both, atol=1e-10)


@pytest.mark.parametrize("function", [plain, token_logprobs])
def test_nothing_of_the_size_of_all_logits_is_kept_or_made(monkeypatch, function):
    """K V = 64 x 5,000 elements; chunks of 8 tokens. The plain lines are measured too, to show that the gauge works."""
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", 8 * 5000)
    head, states, tokens = build(64, 4, 5000, 5000, dtype=torch.float32)
    saved, made = [], []

    class Gauge(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            made.extend(x.numel() for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor))
            return out

    with Gauge(), torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        logprobs, entropy = function(states, head, tokens, 5000)
        (logprobs.sum() + entropy.sum()).backward()
    everything = 64 * 5000
    if function is plain:
        assert max(made) == max(saved) == everything
    else:
        assert max(made) == 8 * 5000
        assert max(saved) == head.weight.numel() == 4 * 5000


def test_heads_that_are_more_than_plain_weights_are_told_apart():
    head = nn.Linear(3, 4)
    assert is_plain(head)
    hooked = nn.Linear(3, 4)
    hooked.register_forward_hook(lambda module, args, out: out * 2)
    assert not is_plain(hooked)
    replaced = nn.Linear(3, 4)
    replaced.forward = lambda x: x
    assert not is_plain(replaced)
    assert not is_plain(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    assert not is_plain(nn.Sequential(nn.Linear(3, 4)))
