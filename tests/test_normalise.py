import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents.normalise import RewardScale, moments, return_moments, scale_rewards, whiten

from textgym.ledger import Ledger

ALL = torch.ones(1, 3, dtype=torch.bool)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def scale_of(rewards, streams=None, mask=None):
    streams = torch.zeros_like(rewards, dtype=torch.long) if streams is None else streams
    mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    return RewardScale().update(return_moments(rewards, streams, mask))


def test_whitening_survives_a_constant_mass_F10():
    """Every episode .3 on its first and .7 on its last token: the sums have no deviation, the tokens do."""
    rewards = torch.tensor([[0.3, 0.0, 0.7]] * 8)
    sums = rewards.sum(1, keepdim=True)
    assert whiten(sums, torch.ones_like(sums, dtype=torch.bool)).abs().max() < 1e-6
    white = whiten(rewards, torch.ones_like(rewards, dtype=torch.bool))
    assert white.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("count", range(2, 12))
def test_rounding_is_not_blown_up_to_deviation_1_F10(count):
    """The same number throughout: for some counts the deviation comes out above 0."""
    x = torch.full((1, count), 1000.1, dtype=torch.float64)
    assert whiten(x, torch.ones_like(x, dtype=torch.bool)).abs().max() < 1e-9


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


def test_whitening_never_sees_what_stands_in_the_padding_F04_F09():
    mask = torch.tensor([[True, True, False]])
    white = whiten(row(1, 2, float("inf")), mask)
    assert white.tolist() == [[-1, 1, 0]]
    assert moments(row(1, 2, float("nan")), mask).tolist() == [2, 3, 5]


def test_whitening_leaves_the_proportions_of_streams():
    """A stream of which nothing but noise is left is not blown up to the size of the other."""
    streams = torch.tensor([[0, 0, 1, 1]])
    white = whiten(row(10, -10, 0.1, -0.1), torch.ones(1, 4, dtype=torch.bool))
    assert (white[streams == 0] / white[streams == 1]).tolist() == pytest.approx([100, 100])


def test_the_scale_is_that_of_streams_not_of_episodes_F10():
    # two episodes, streams 0 0 1: sums (3, -3) and (1, -1): every episode sums to 0; mean square (9 + 9 + 1 + 1) / 4 = 5
    rewards, streams = torch.tensor([[1.0, 2, -3], [0, 1, -1]]), torch.tensor([[0, 0, 1], [0, 0, 1]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    scale = scale_of(rewards, streams)
    assert scale == RewardScale(4, 20, 20)
    scaled, taken = scale_rewards(rewards, mask, scale)
    assert torch.allclose(scaled, rewards / math.sqrt(5))
    assert taken.abs().max() < 1e-7


def test_a_scaled_constant_mass_is_still_constant_and_finite_F10():
    rewards = torch.tensor([[0.3, 0.0, 0.7]] * 8)
    scaled, _ = scale_rewards(rewards, torch.ones(8, 3, dtype=torch.bool), scale_of(rewards, torch.tensor([[0, 0, 1]] * 8)))
    # streams of .3 and .7: root of (.09 + .49) / 2
    assert scaled.sum(1).tolist() == pytest.approx([1 / math.sqrt(0.29)] * 8)


def test_a_sum_that_is_0_up_to_rounding_scales_nothing_F10():
    rewards = torch.tensor([[0.1, 0.2, -0.3]] * 8)
    assert rewards.double().sum() != 0
    assert scale_of(rewards).rms == 1


def test_one_episode_one_token_no_reward_and_no_episode_are_finite_F11():
    assert scale_of(row(-5)).rms == 5
    assert scale_of(row(0, 0)).rms == 1
    assert RewardScale().rms == 1
    assert scale_of(row(7), mask=torch.tensor([[False]])) == RewardScale()


def test_a_scale_shifts_nothing():
    """A token without reward gets none, however long the text is; one shifted by a mean would."""
    rewards = row(2, 0, 0)
    assert scale_rewards(rewards, ALL, scale_of(rewards))[0].tolist() == [[1, 0, 0]]


def test_what_the_scale_took_is_an_account_that_adds_up():
    rewards = torch.tensor([[1.0, 3, 0], [8, 0, 9]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    scaled, taken = scale_rewards(rewards, mask, RewardScale(1, 16, 16))
    assert scaled.tolist() == [[0.25, 0.75, 0], [2, 0, 0]]
    assert taken.tolist() == [3, 6]
    ledger = Ledger(asked=float((4 + 8) / 2)).take("scale", float(taken.mean()))
    ledger.check(float(scaled.sum(1).mean()), 10, "the collection")


def test_two_processes_scale_as_one_F14():
    rewards = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    streams, mask = torch.tensor([[0, 1, 0], [2, 2, 1]]), torch.ones(2, 3, dtype=torch.bool)
    parts = sum(return_moments(rewards[i : i + 1], streams[i : i + 1], mask[i : i + 1]) for i in (0, 1))
    assert RewardScale().update(parts) == scale_of(rewards, streams)


def test_the_scale_goes_on_from_its_saved_numbers_F32():
    first, second = row(1, 2), row(-4, 4)
    streams, mask = torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool)
    scale = scale_of(first, streams).update(return_moments(second, streams, mask))
    saved = (scale.count, scale.squares, scale.sizes)
    assert all(type(x) is float for x in saved)
    assert RewardScale(*saved) == scale == RewardScale(4, 1 + 4 + 16 + 16, 37)


def test_moments_that_are_not_finite_never_enter_the_scale_F15():
    with pytest.raises(ValueError, match="not finite"):
        scale_of(row(1, float("nan")))


@settings(max_examples=100)
@given(data=st.data(), padding=st.integers(0, 5))
def test_the_scale_is_that_of_a_loop_over_streams_whatever_the_padding_F04(data, padding):
    episodes, tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    draw = lambda kind: data.draw(  # noqa: E731
        st.lists(st.lists(kind, min_size=tokens, max_size=tokens), min_size=episodes, max_size=episodes)
    )
    rewards, streams, mask = draw(st.integers(-3, 3)), draw(st.sampled_from([0, 1, 1000])), draw(st.booleans())
    sums = defaultdict(float)
    for e in range(episodes):
        for t in range(tokens):
            if mask[e][t]:
                sums[e, streams[e][t]] += rewards[e][t]
    expected = math.sqrt(sum(x * x for x in sums.values()) / len(sums)) if any(sums.values()) else 1.0

    def pad(table, value, dtype):
        return torch.tensor([[*cells, *[value] * padding] for cells in table], dtype=dtype)

    tables = pad(rewards, math.nan, torch.float64), pad(streams, 5, torch.long), pad(mask, False, torch.bool)
    scale = scale_of(*tables)
    assert scale.rms == pytest.approx(expected)
    scaled, taken = scale_rewards(tables[0], tables[2], scale)
    assert torch.allclose(scaled.sum(1) + taken, torch.where(tables[2], tables[0], 0).sum(1))
    assert (scaled[~tables[2]] == 0).all()
