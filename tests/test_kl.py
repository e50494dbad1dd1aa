import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents.kl import adapt_kl_coef, kl_estimate, kl_loss, kl_penalty

ALL = torch.ones(1, 3, dtype=torch.bool)
KINDS = ("k1", "k2", "k3")
LOGITS = [0.3, -1.2, 0.9, 0.1]
REFERENCE = torch.tensor([-0.5, 0.4, 1.1, -0.2], dtype=torch.float64).log_softmax(0)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def gradient(of):
    """Finite differences of a function of the policy's logits: knows nothing of score functions or of autograd."""
    out = []
    for i in range(len(LOGITS)):
        at = []
        for step in (1e-5, -1e-5):
            logits = torch.tensor(LOGITS, dtype=torch.float64)
            logits[i] += step
            at.append(float(of(logits.log_softmax(0))))
        out.append((at[0] - at[1]) / 2e-5)
    return torch.tensor(out, dtype=torch.float64)


def forward_kl(logp):
    return (REFERENCE.exp() * (REFERENCE - logp)).sum()


def reverse_kl(logp):
    return (logp.exp() * (logp - REFERENCE)).sum()


def half_square(logp):
    return 0.5 * (logp.exp() * (logp - REFERENCE).square()).sum()


def test_values_by_hand():
    # the policy says 1/2, the reference 1/4: d = log 2
    d = math.log(2)
    logprobs, reference = row(-d), row(-2 * d)
    assert kl_estimate(logprobs, reference, "k1").item() == pytest.approx(d)
    assert kl_estimate(logprobs, reference, "k2").item() == pytest.approx(d * d / 2)
    assert kl_estimate(logprobs, reference, "k3").item() == pytest.approx(0.5 - 1 + d)


@pytest.mark.parametrize(("kind", "exact"), [("k1", reverse_kl), ("k2", half_square), ("k3", reverse_kl)])
def test_expected_values_over_every_token_are_those_of_the_table(kind, exact):
    logp = torch.tensor(LOGITS, dtype=torch.float64).log_softmax(0)
    expectation = (logp.exp() * kl_estimate(logp, REFERENCE, kind)).sum()
    assert expectation.item() == pytest.approx(float(exact(logp)), abs=1e-12)


@pytest.mark.parametrize(("kind", "exact"), [("k1", lambda logp: torch.zeros(())), ("k2", reverse_kl), ("k3", forward_kl)])
def test_expected_gradients_as_a_loss_are_those_of_the_table(kind, exact):
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(0)
    # the samples stay: each token's estimate counts as often as the policy says it, and no gradient flows through that
    (logp.detach().exp() * kl_estimate(logp, REFERENCE, kind)).sum().backward()
    torch.testing.assert_close(logits.grad, gradient(exact), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "exact"),
    [
        ("k1", reverse_kl),
        ("k2", lambda logp: half_square(logp) - reverse_kl(logp)),
        ("k3", lambda logp: reverse_kl(logp) - forward_kl(logp)),
    ],
)
def test_expected_gradients_as_a_reward_are_those_of_the_table(kind, exact):
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(0)
    mask = torch.ones(1, len(LOGITS), dtype=torch.bool)
    reward = kl_penalty(logp[None].detach(), REFERENCE[None], mask, 1.0, kind)[0]
    (logp.detach().exp() * -reward * logp).sum().backward()
    torch.testing.assert_close(logits.grad, gradient(exact), atol=1e-8, rtol=1e-6)


def test_near_the_reference_only_k1_pulls_back_as_a_reward():
    logits = (REFERENCE + 0.01 * torch.tensor([1.0, -1, 0.5, 0], dtype=torch.float64)).requires_grad_()
    logp = logits.log_softmax(0)
    pull = {}
    for kind in KINDS:
        reward = -kl_estimate(logp, REFERENCE, kind).detach()
        pull[kind] = torch.autograd.grad((logp.detach().exp() * reward * logp).sum(), logits, retain_graph=True)[0].norm()
    assert pull["k2"] < 0.02 * pull["k1"]
    assert pull["k3"] < 0.02 * pull["k1"]


@settings(max_examples=100)
@given(
    logits=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=6),
)
def test_k1_and_k3_are_unbiased_and_k2_and_k3_never_negative(logits):
    logp, reference = torch.tensor(logits, dtype=torch.float64).T.log_softmax(1)
    exact = float((logp.exp() * (logp - reference)).sum())
    values = {kind: kl_estimate(logp, reference, kind) for kind in KINDS}
    assert float((logp.exp() * values["k1"]).sum()) == pytest.approx(exact, abs=1e-9)
    assert float((logp.exp() * values["k3"]).sum()) == pytest.approx(exact, abs=1e-9)
    assert values["k2"].min() >= 0
    assert values["k3"].min() >= -1e-12


def test_a_small_difference_is_not_lost_to_rounding_in_k3():
    d = torch.tensor([[1e-3]])  # float32: exp(-d) - 1 + d is 4.9983e-7, and 5.4e-7 where 1 is subtracted from the power
    assert kl_estimate(d, torch.zeros_like(d), "k3").item() == pytest.approx(4.9983e-7, rel=1e-3)


def test_the_penalty_is_the_log_ratio_where_the_agent_wrote():
    mask = torch.tensor([[True, False, True]])
    assert kl_penalty(row(-1, -1, -1), row(-2, -5, 0), mask, 0.5).tolist() == [[-0.5, 0, 0.5]]
    assert kl_penalty(row(-1, -1, -1), row(-2, -5, 0), mask, 0.5, "k2").tolist() == [[-0.25, 0, -0.25]]


def test_k1_is_refused_as_a_loss_with_the_reason():
    with pytest.raises(ValueError, match="expectation 0"):
        kl_loss(row(0, 0, 0), row(0, 0, 0), ALL, "k1")


def test_an_unknown_estimator_is_named():
    with pytest.raises(ValueError, match="'k4'; it must be k1, k2 or k3"):
        kl_estimate(row(0), row(0), "k4")


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_the_loss_has_the_gradient_of_finite_differences(kind):
    generator = torch.Generator().manual_seed(0)
    logprobs, reference = torch.randn(2, 2, 4, dtype=torch.float64, generator=generator)
    mask = torch.tensor([[True, True, False, True], [True, False, False, True]])
    logprobs.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kl_loss(x, reference, mask, kind), (logprobs,))


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_micro_batches_of_the_loss_add_up(kind):
    logprobs, reference = row(-1, -2, -3).T, row(-2, -2, -1).T
    mask = torch.tensor([[True], [False], [True]])
    parts = [kl_loss(*(x[i : i + 1] for x in (logprobs, reference, mask)), kind, 2) for i in range(3)]
    assert parts[1] == 0
    assert sum(parts).item() == pytest.approx(kl_loss(logprobs, reference, mask, kind).item())


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_padding_never_reaches_the_loss_or_its_gradient_F04_F09(kind):
    mask = torch.tensor([[True, True, False]])
    dirty = row(-1, -2, float("-inf")).requires_grad_()
    loss = kl_loss(dirty, row(-2, -1, float("nan")), mask, kind)
    loss.backward()
    assert loss.item() == kl_loss(row(-1, -2), row(-2, -1), mask[:, :2], kind).item()
    assert dirty.grad[0, 2] == 0
    assert torch.isfinite(dirty.grad).all()
    assert torch.isfinite(kl_penalty(dirty.detach(), row(-2, -1, float("nan")), mask, 0.1, kind)).all()


def test_the_coefficient_by_hand():
    step = {"target": 6.0, "episodes": 256, "horizon": 10000}
    assert adapt_kl_coef(0.2, 6.0, **step) == 0.2
    assert adapt_kl_coef(0.2, 6.6, **step) == pytest.approx(0.2 * (1 + 0.1 * 0.0256))
    assert adapt_kl_coef(0.2, 60.0, **step) == pytest.approx(0.2 * (1 + 0.2 * 0.0256))
    assert adapt_kl_coef(0.2, 0.0, **step) == pytest.approx(0.2 * (1 - 0.2 * 0.0256))
    assert adapt_kl_coef(0.2, -1.0, **step) == pytest.approx(0.2 * (1 - 0.2 * 0.0256))


def test_the_coefficient_holds_the_kl_at_its_target():
    """Where the KL is 1 / coefficient, a target of 2 nats asks for a coefficient of .5, from either side."""
    for kl_coef in (0.01, 20.0):
        for _ in range(200):
            kl_coef = adapt_kl_coef(kl_coef, 1 / kl_coef, target=2.0, episodes=100, horizon=250)
        assert kl_coef == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl_coef": 0.0}, "kl_coef is 0.0"),
        ({"kl": math.nan}, "measured KL is nan"),
        ({"target": 0.0}, "target is 0.0"),
        ({"horizon": 20.0}, "horizon is 20.0 for 100 episodes a time; it must be above 20"),
    ],
)
def test_a_coefficient_that_would_stand_still_turn_or_spread_nan_is_refused(change, message):
    arguments = {"kl_coef": 0.1, "kl": 1.0, "target": 1.0, "episodes": 100, "horizon": 1000.0, **change}
    with pytest.raises(ValueError, match=message):
        adapt_kl_coef(**arguments)
