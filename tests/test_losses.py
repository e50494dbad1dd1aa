import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents.losses import (
    explained_variance,
    kl_penalty,
    masked_mean,
    moments,
    ppo_policy_loss,
    value_loss,
    whiten,
)

ALL = torch.ones(1, 3, dtype=torch.bool)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_policy_loss_by_hand():
    # ratios 1, 2, .5 with advantages 1, 1, -1 and clip .2: min(1, 1) = 1; min(2, 1.2) = 1.2; min(-.5, -.8) = -.8
    logprobs = row(0, math.log(2), math.log(0.5))
    out = ppo_policy_loss(logprobs, row(0, 0, 0), row(1, 1, -1), ALL, 0.2)
    assert out.loss.item() == pytest.approx(-(1 + 1.2 - 0.8) / 3)
    assert out.clip_fraction.item() == pytest.approx(2 / 3)
    k3 = [0, 2 - 1 - math.log(2), 0.5 - 1 - math.log(0.5)]
    assert out.approx_kl.item() == pytest.approx(sum(k3) / 3)


def test_policy_loss_has_the_gradient_of_finite_differences():
    torch.manual_seed(0)  # the test's own numbers
    logprobs = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    old, advantages = torch.randn(2, 2, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True, False, False, True]])
    assert torch.autograd.gradcheck(lambda x: ppo_policy_loss(x, old, advantages, mask, 0.2).loss, (logprobs,))
    assert torch.autograd.gradcheck(lambda x: value_loss(x, old, advantages, mask, 0.3), (logprobs,))


def test_value_loss_by_hand():
    assert value_loss(row(1, 2, 3), row(0, 0, 0), row(0, 0, 0), ALL).item() == pytest.approx(0.5 * (1 + 4 + 9) / 3)
    # clipped to within .5 of the old value 0, the prediction 1 for return 2 counts as .5: (2 - .5)^2 > (2 - 1)^2
    assert value_loss(row(1), row(0), row(2), ALL[:, :1], 0.5).item() == pytest.approx(0.5 * 1.5**2)


def test_kl_penalty_is_the_log_ratio_where_the_agent_wrote():
    mask = torch.tensor([[True, False, True]])
    assert kl_penalty(row(-1, -1, -1), row(-2, -5, 0), mask, 0.5).tolist() == [[-0.5, 0, 0.5]]


def test_rows_padded_to_5_and_to_40_give_identical_losses_F04():
    def losses(width):
        def pad(*values):
            return row(*values, *([7.0] * (width - 3)))

        mask = torch.arange(width)[None] < 3
        x, old, adv = pad(0.1, 0.2, 0.3), pad(0.0, 0.3, 0.1), pad(1.0, -1.0, 2.0)
        policy = ppo_policy_loss(x, old, adv, mask, 0.2)
        white = whiten(adv, mask)
        return [
            policy.loss.item(),
            policy.approx_kl.item(),
            value_loss(x, old, adv, mask).item(),
            *white[0, :3].tolist(),
            kl_penalty(x, old, mask, 0.1).sum().item(),
            explained_variance(x, adv, mask),
        ]

    assert losses(5) == losses(40)


def test_sentinels_in_padding_never_reach_a_loss_F09():
    mask = torch.tensor([[True, True, False]])
    bad = row(0.1, 0.2, float("-inf")).requires_grad_()
    loss = ppo_policy_loss(bad, row(0, 0, float("nan")), row(1, 1, 0), mask, 0.2).loss
    loss.backward()
    assert math.isfinite(loss.item())
    assert bad.grad is not None
    assert torch.isfinite(bad.grad).all()
    assert torch.isfinite(whiten(row(1, 2, float("inf")), mask)).all()


def test_whitening_survives_a_constant_mass_F10():
    """Every episode .3 on its first and .7 on its last token: the sums have no deviation, the tokens do."""
    rewards = torch.tensor([[0.3, 0.0, 0.7]] * 8)
    sums = rewards.sum(1, keepdim=True)
    assert whiten(sums, torch.ones_like(sums, dtype=torch.bool)).abs().max() < 1e-6
    white = whiten(rewards, torch.ones_like(rewards, dtype=torch.bool))
    assert white.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)


def test_whitening_a_batch_of_one_gives_0_not_nan_F11():
    assert whiten(row(5.0), ALL[:, :1]).tolist() == [[0.0]]
    mask = torch.tensor([[False, True, False]])
    assert whiten(row(1, 5, 3), mask).tolist() == [[0.0, 0.0, 0.0]]


def test_whitening_over_processes_is_whitening_of_all():
    parts = [row(1, 2, 3), row(10, -4, 0)]
    totals = sum(moments(part, ALL) for part in parts)
    together = whiten(torch.cat(parts), torch.cat([ALL, ALL]))
    for i, part in enumerate(parts):
        assert torch.allclose(whiten(part, ALL, totals), together[i : i + 1])


@settings(max_examples=100)
@given(values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20))
def test_whitened_numbers_have_mean_0_and_deviation_1_or_were_constant(values):
    x = torch.tensor([values], dtype=torch.float64)
    white = whiten(x, torch.ones_like(x, dtype=torch.bool))
    assert torch.isfinite(white).all()
    if np.std(values) > 1e-3 * max(1e-30, np.max(np.abs(values))):
        assert white.mean().item() == pytest.approx(0, abs=1e-6)
        assert white.std(unbiased=False).item() == pytest.approx(1, abs=1e-6)


def test_a_mean_over_nothing_is_an_error_not_nan():
    with pytest.raises(ValueError, match="no token"):
        masked_mean(row(1, 2, 3), ~ALL)


def test_explained_variance():
    assert explained_variance(row(1, 2, 3), row(1, 2, 3), ALL) == 1
    assert explained_variance(row(0, 0, 0), row(1, 2, 3), ALL) == 0
    assert math.isnan(explained_variance(row(1, 2, 3), row(1, 1, 1), ALL))
