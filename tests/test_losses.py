import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents.losses import (
    explained_variance,
    importance_weights,
    masked_mean,
    ppo_policy_loss,
    value_loss,
)

ALL = torch.ones(1, 3, dtype=torch.bool)
CLIP = {"clip_low": 0.2, "clip_high": 0.2}


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def tables(seed, count, rows=4, width=5):
    """Draw ``count`` float tables and a mask whose last row is empty."""
    rng = np.random.default_rng(seed)
    mask = torch.tensor(rng.random((rows, width)) < 0.7)
    mask[0, 0], mask[-1] = True, False
    return [torch.tensor(rng.normal(size=(rows, width))) for _ in range(count)], mask


def looped_policy_loss(logprobs, old, advantages, mask, low, high, dual, weights):
    """PPO's loss token by token, case by case, from the papers' figures rather than their formulas."""
    loss, clipped, bounded, count = 0.0, 0, 0, 0
    for cells in zip(*(np.asarray(x).ravel() for x in (logprobs, old, advantages, mask, weights)), strict=True):
        logprob, old_logprob, advantage, mine, weight = cells
        if not mine:
            continue
        ratio, count = math.exp(logprob - old_logprob), count + 1
        if advantage >= 0:
            gain = advantage * (ratio if ratio < 1 + high else 1 + high)
        else:
            gain = advantage * (ratio if ratio > 1 - low else 1 - low)
            if dual is not None and ratio > dual:
                gain, bounded = advantage * dual, bounded + 1
        clipped += not 1 - low <= ratio <= 1 + high
        loss -= weight * gain
    return loss / count, clipped / count, bounded / count


def test_policy_loss_by_hand():
    # ratios 1, 2, .5 with advantages 1, 1, -1 and clip .2: min(1, 1) = 1; min(2, 1.2) = 1.2; min(-.5, -.8) = -.8
    logprobs = row(0, math.log(2), math.log(0.5))
    out = ppo_policy_loss(logprobs, row(0, 0, 0), row(1, 1, -1), ALL, **CLIP)
    assert out.loss.item() == pytest.approx(-(1 + 1.2 - 0.8) / 3)
    assert out.clip_fraction.item() == pytest.approx(2 / 3)
    k3 = [0, 2 - 1 - math.log(2), 0.5 - 1 - math.log(0.5)]
    assert out.approx_kl.item() == pytest.approx(sum(k3) / 3)
    assert out.dual_clip_fraction == 0


def test_the_two_sides_of_the_clip_are_told_apart():
    # ratios 1.25, .75, .6 with advantages 1, -1, -1, trusted from .7 to 1.3: 1.25, -.75 and, clipped, -.7
    logprobs = row(math.log(1.25), math.log(0.75), math.log(0.6))
    out = ppo_policy_loss(logprobs, row(0, 0, 0), row(1, -1, -1), ALL, clip_low=0.3, clip_high=0.3)
    assert out.loss.item() == pytest.approx(-(1.25 - 0.75 - 0.7) / 3)
    high = ppo_policy_loss(logprobs, row(0, 0, 0), row(1, -1, -1), ALL, clip_low=0.1, clip_high=0.3)
    assert high.loss.item() == pytest.approx(-(1.25 - 0.9 - 0.9) / 3)
    assert high.clip_fraction.item() == pytest.approx(2 / 3)
    low = ppo_policy_loss(logprobs, row(0, 0, 0), row(1, -1, -1), ALL, clip_low=0.3, clip_high=0.1)
    assert low.loss.item() == pytest.approx(-(1.1 - 0.75 - 0.7) / 3)


def test_the_dual_clip_bounds_what_a_bad_token_costs():
    # ratios 10, 10, 2 with advantages -1, 1, -1 and c = 3: -3 in place of -10; 1.2 as ever; -2 is within the bound
    logprobs = row(math.log(10), math.log(10), math.log(2)).requires_grad_()
    out = ppo_policy_loss(logprobs, row(0, 0, 0), row(-1, 1, -1), ALL, **CLIP, dual_clip=3.0)
    assert out.loss.item() == pytest.approx((3 - 1.2 + 2) / 3)
    assert out.dual_clip_fraction.item() == pytest.approx(1 / 3)
    out.loss.backward()
    assert logprobs.grad[0].tolist() == pytest.approx([0, 0, 2 / 3])
    free = ppo_policy_loss(logprobs, row(0, 0, 0), row(-1, 1, -1), ALL, **CLIP)
    assert free.loss.item() == pytest.approx((10 - 1.2 + 2) / 3)


def test_weights_scale_each_tokens_loss_and_take_no_gradient():
    weights = row(2, 0.5, 1).requires_grad_()
    logprobs = row(0, 0, 0).requires_grad_()
    out = ppo_policy_loss(logprobs, row(0, 0, 0), row(1, 2, 3), ALL, **CLIP, weights=weights)
    out.loss.backward()
    assert out.loss.item() == pytest.approx(-(2 + 1 + 3) / 3)
    assert logprobs.grad[0].tolist() == pytest.approx([-2 / 3, -1 / 3, -1])
    assert weights.grad is None


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    low=st.floats(0, 0.9),
    high=st.floats(0, 2),
    dual=st.none() | st.floats(1.01, 5),
)
def test_policy_loss_is_that_of_a_loop_over_tokens(seed, low, high, dual):
    (logprobs, old, advantages, weights), mask = tables(seed, 4)
    out = ppo_policy_loss(logprobs, old, advantages, mask, clip_low=low, clip_high=high, dual_clip=dual, weights=weights.exp())
    expected = looped_policy_loss(logprobs, old, advantages, mask, low, high, dual, weights.exp())
    assert [x.item() for x in (out.loss, out.clip_fraction, out.dual_clip_fraction)] == pytest.approx(expected)


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), clip=st.none() | st.floats(0.01, 2))
def test_value_loss_is_that_of_a_loop_over_tokens(seed, clip):
    (values, old, returns), mask = tables(seed, 3)
    losses = []
    for v, o, r in zip(*(x[mask].tolist() for x in (values, old, returns)), strict=True):
        near = v if clip is None else min(max(v, o - clip), o + clip)
        losses.append(max((v - r) ** 2, (near - r) ** 2) / 2)
    assert value_loss(values, old, returns, mask, clip).item() == pytest.approx(sum(losses) / len(losses))


def test_losses_have_the_gradient_of_finite_differences():
    (logprobs, old, advantages, weights), mask = tables(1, 4)
    logprobs.requires_grad_()
    for extra in ({}, {"dual_clip": 1.5}, {"weights": weights.exp(), "count": 7}):
        assert torch.autograd.gradcheck(
            lambda x, extra=extra: ppo_policy_loss(x, old, advantages, mask, clip_low=0.2, clip_high=0.4, **extra).loss,
            (logprobs,),
        )
    assert torch.autograd.gradcheck(lambda x: value_loss(x, old, advantages, mask, 0.3), (logprobs,))
    assert torch.autograd.gradcheck(lambda x: value_loss(x, old, advantages, mask, count=7), (logprobs,))
    assert torch.autograd.gradcheck(lambda x: masked_mean(x.square(), mask, 7), (logprobs,))


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), data=st.data(), as_tensor=st.booleans())
def test_micro_batches_of_any_kind_add_up_to_the_minibatch(seed, data, as_tensor):
    """The last row has no agent token: a micro-batch of it alone is legal."""
    (x, old, advantages, weights), mask = tables(seed, 4)
    parts = data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))

    def losses(rows, count):
        cells, here = [t[rows] for t in (x, old, advantages, weights.exp())], mask[rows]
        policy = ppo_policy_loss(*cells[:3], here, **CLIP, dual_clip=2.0, weights=cells[3], count=count)
        value = value_loss(*cells[:3], here, 0.3, count)
        figures = torch.stack([policy.clip_fraction, policy.approx_kl, policy.dual_clip_fraction])
        return policy.loss + value + masked_mean(cells[0].square(), here, count), figures

    x.requires_grad_()
    whole, figures = losses(torch.arange(4), None)
    (gradient,) = torch.autograd.grad(whole, x)
    count = mask.sum() if as_tensor else int(mask.sum())
    split = [losses(torch.tensor([i for i in range(4) if parts[i] == part]), count) for part in sorted(set(parts))]
    total = sum(loss for loss, _ in split)
    assert total.item() == pytest.approx(whole.item())
    torch.testing.assert_close(sum(f for _, f in split), figures)
    torch.testing.assert_close(torch.autograd.grad(total, x)[0], gradient)


def test_value_loss_by_hand():
    assert value_loss(row(1, 2, 3), row(0, 0, 0), row(0, 0, 0), ALL).item() == pytest.approx(0.5 * (1 + 4 + 9) / 3)
    # clipped to within .5 of the old value 0, the prediction 1 for return 2 counts as .5: (2 - .5)^2 > (2 - 1)^2
    assert value_loss(row(1), row(0), row(2), ALL[:, :1], 0.5).item() == pytest.approx(0.5 * 1.5**2)


def test_importance_weights_by_hand():
    mask = torch.tensor([[True, True, False]])
    # as likely as before and half as likely, or three times and cut to 2; padding 1, whatever stands there
    assert importance_weights(row(-1, math.log(0.25), 5), row(-1, math.log(0.5), 0), mask, 2).tolist() == [[1, 0.5, 1]]
    assert importance_weights(row(-1, math.log(0.75), 5), row(-1, math.log(0.25), 0), mask, 2).tolist() == [[1, 2, 1]]
    assert importance_weights(row(0, 0, math.nan).requires_grad_(), row(0, 0, 0), mask, 2).requires_grad is False


@pytest.mark.parametrize("cap", [1.0, 1.3, math.inf])
def test_importance_weights_turn_old_samples_into_those_of_now_but_for_the_truncation(cap):
    """By enumeration: E_behaviour[w f] is E_old[f], less (1 - cap / ratio) of each token whose ratio is above the cap."""
    old, behaviour = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4]], dtype=torch.float64)
    f = row(1, 2, 3)[0]
    weights = importance_weights(old.log()[None], behaviour.log()[None], ALL, cap)[0]
    lost = sum(old[i] * f[i] * max(0.0, 1 - cap / float(old[i] / behaviour[i])) for i in range(3))
    assert (behaviour * weights * f).sum().item() == pytest.approx(float((old * f).sum() - lost))


def test_the_decoupled_loss_has_the_gradient_of_samples_of_the_old_policy():
    """Samples of a third policy, weighted, give the expected gradient that the old policy's own samples give."""
    old, behaviour = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4]], dtype=torch.float64)
    gradients = []
    for sampler in (old, behaviour):
        logits = row(0.6, -0.3, 0.1)[0].requires_grad_()
        logp = logits.log_softmax(0)[None]
        weights = importance_weights(old.log()[None], sampler.log()[None], ALL, math.inf)
        # each token once, its advantage weighted by how often the sampler says it
        out = ppo_policy_loss(logp, old.log()[None], row(1, -2, 3) * sampler, ALL, **CLIP, weights=weights, count=1)
        out.loss.backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), width=st.integers(0, 7), filler=st.sampled_from([0.0, 7.0, -1e30, math.inf, math.nan]))
def test_padding_of_any_width_and_content_changes_no_loss_F04_F09(seed, width, filler):
    (logprobs, old, advantages, behaviour), mask = tables(seed, 4)

    def losses(width):
        def pad(table, value=filler):
            return torch.nn.functional.pad(table, (0, width), value=value)

        x, here = pad(logprobs).requires_grad_(), pad(mask, False)
        weights = importance_weights(pad(old), pad(behaviour), here, 2.0)
        policy = ppo_policy_loss(x, pad(old), pad(advantages), here, **CLIP, dual_clip=3.0, weights=weights)
        value = value_loss(x, pad(old), pad(advantages), here, 0.2)
        entropy = masked_mean(x, here)
        (gradient,) = torch.autograd.grad(policy.loss + value + entropy, x)
        assert (gradient[:, 5:] == 0).all()
        figures = [policy.loss, policy.clip_fraction, policy.approx_kl, policy.dual_clip_fraction, value, entropy]
        explained = explained_variance(x.detach(), pad(advantages), here)
        return torch.cat([gradient[:, :5].flatten(), torch.stack(figures), torch.tensor([explained])])

    torch.testing.assert_close(losses(width), losses(0), equal_nan=True)


def test_a_count_that_cannot_be_divided_by_is_refused():
    for count in (0, -3, torch.tensor(0)):
        with pytest.raises(ValueError, match="above 0"):
            masked_mean(row(1, 2, 3), ALL, count)
    assert masked_mean(row(1, 2, 3), ~ALL, 5) == 0


def test_clips_and_caps_out_of_range_are_refused():
    cells = row(0, 0, 0), row(0, 0, 0), row(1, 1, 1), ALL
    with pytest.raises(ValueError, match=r"clip_low is -0\.1"):
        ppo_policy_loss(*cells, clip_low=-0.1, clip_high=0.2)
    with pytest.raises(ValueError, match=r"dual_clip is 1\.0"):
        ppo_policy_loss(*cells, **CLIP, dual_clip=1.0)
    with pytest.raises(ValueError, match=r"cap is 0\.5"):
        importance_weights(*cells[:2], ALL, 0.5)


def test_a_sampled_token_without_a_probability_is_named_F15():
    with pytest.raises(ValueError, match="row 0, token 1 is inf"):
        importance_weights(row(0, -1, 0), row(0, float("-inf"), 0), ALL, 2.0)


def test_a_mean_over_nothing_is_an_error_not_nan():
    with pytest.raises(ValueError, match="no token"):
        masked_mean(row(1, 2, 3), ~ALL)


def test_explained_variance():
    assert explained_variance(row(1, 2, 3), row(1, 2, 3), ALL) == 1
    assert explained_variance(row(0, 0, 0), row(1, 2, 3), ALL) == 0
    assert math.isnan(explained_variance(row(1, 2, 3), row(1, 1, 1), ALL))
    nearly = torch.tensor([[0.3, 0.3 + 3e-8, 0.3]])  # two float32 neighbours
    assert nearly.unique().numel() == 2
    assert math.isnan(explained_variance(torch.zeros(1, 3), nearly, ALL))
