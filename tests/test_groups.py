"""Baselines from groups: hand-worked numbers, and an independent way to each of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents.groups import (
    best_of_group,
    group_statistics,
    leave_one_out,
    places,
    rewards_to_go,
    standardise,
    stream_means,
    stream_sums,
)

REWARDS = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 3.0, 0.0, 5.0]])
STREAMS = torch.tensor([[0, 1, 0, 1], [0, 0, -1, 1]])
MASK = STREAMS >= 0


def test_rewards_to_go_and_sums_stay_inside_their_stream():
    assert rewards_to_go(REWARDS, STREAMS, MASK).tolist() == [[5, 10, 4, 8], [3, 3, 0, 5]]
    assert stream_sums(REWARDS, STREAMS, MASK).tolist() == [[5, 10, 5, 10], [3, 3, 0, 5]]


def test_the_mean_of_a_stream_is_over_its_own_tokens_of_all_episodes():
    x = torch.tensor([[5.0, 10.0, 4.0, 8.0], [3.0, 3.0, 99.0, 5.0]])
    zero, one = (5 + 4 + 3 + 3) / 4, (10 + 8 + 5) / 3
    assert torch.allclose(stream_means(x, STREAMS, MASK), torch.tensor([[zero, one, zero, one], [zero, zero, 0, one]]))


def test_tokens_are_numbered_inside_their_stream():
    assert places(STREAMS, MASK).tolist() == [[0, 0, 1, 1], [0, 1, -1, 0]]


def column(values, streams=None):
    """One token per episode and stream 0, or tokens of the streams given."""
    x = torch.tensor(values)
    keys = torch.zeros_like(x, dtype=torch.int64) if streams is None else torch.tensor(streams)
    return x, keys, keys >= 0


def test_rloo_takes_the_mean_of_the_others_of_the_group():
    x, keys, mask = column([[1.0], [2.0], [6.0], [100.0], [102.0]])
    advantages, alone = leave_one_out(x, keys, mask, torch.tensor([0, 0, 0, 1, 1]))
    assert advantages.flatten().tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, -2, 2]
    assert not alone.any()


def test_grpo_counts_in_deviations_of_the_group():
    x, keys, mask = column([[1.0], [3.0], [5.0], [5.0]])
    advantages, _ = standardise(x, keys, mask, torch.tensor([0, 0, 1, 1]))
    assert advantages.flatten().tolist() == [-1, 1, 0, 0]  # all alike: nothing to prefer, and no 0 / 0


def test_a_stream_is_compared_with_the_members_that_have_it():
    x, keys, mask = column([[1.0, 7.0], [5.0, 0.0], [3.0, 9.0]], [[0, 1], [0, -1], [0, 1]])
    advantages, alone = leave_one_out(x, keys, mask, torch.zeros(3, dtype=torch.int64))
    assert advantages.tolist() == [[1 - 4, 7 - 9], [5 - 2, 0], [3 - 3, 9 - 7]]
    assert not alone.any()


def test_a_unit_without_a_companion_keeps_its_value_under_rloo_and_is_named():
    x, keys, mask = column([[4.0], [1.0], [2.0]])
    advantages, alone = leave_one_out(x, keys, mask, torch.tensor([0, 1, 1]))
    assert advantages.flatten().tolist() == [4, -1, 1]
    assert alone.flatten().tolist() == [True, False, False]
    assert standardise(x, keys, mask, torch.tensor([0, 1, 1]))[0].flatten().tolist() == [0, -1, 1]


def test_an_episode_counts_once_however_many_tokens_it_has():
    x, keys, mask = column([[1.0, 1.0, 1.0], [4.0, 0.0, 0.0]], [[0, 0, 0], [0, -1, -1]])
    count, total, squares = group_statistics(x, keys, mask, torch.zeros(2, dtype=torch.int64))
    assert (count[0, 2], total[0, 2], squares[0, 2]) == (2, 5, 17)
    assert count[1, 1] == total[1, 1] == 0


def test_the_best_of_each_stream_is_kept_and_of_equals_none():
    x, keys, mask = column([[1.0, 9.0], [5.0, 2.0], [7.0, 7.0], [7.0, 7.0]], [[0, 1]] * 4)
    kept = best_of_group(x, keys, mask, torch.tensor([0, 0, 1, 1]), torch.arange(4))
    assert kept.tolist() == [[False, True], [True, False], [False, False], [False, False]]


def test_of_several_best_ones_the_first_is_kept():
    x, keys, mask = column([[7.0], [7.0], [1.0]])
    assert best_of_group(x, keys, mask, torch.zeros(3, dtype=torch.int64), torch.tensor([5, 2, 0]))[:, 0].tolist() == [
        False,
        True,
        False,
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-8, 8)), min_size=2, max_size=8), st.integers(0, 3))
def test_padding_changes_nothing_and_leave_one_out_sums_to_zero_in_a_group_F04(rows, padding):
    group = torch.tensor([g for g, _ in rows])
    x = torch.tensor([[float(v)] for _, v in rows])
    wide = torch.nn.functional.pad(x, (0, padding), value=77.0)
    keys = torch.full(wide.shape, -1)
    keys[:, 0] = 0
    advantages, alone = leave_one_out(wide, keys, keys >= 0, group)
    plain, _ = leave_one_out(x, keys[:, :1], keys[:, :1] >= 0, group)
    assert torch.equal(advantages[:, :1], plain)
    assert not advantages[:, 1:].any()
    for g in set(group.tolist()):
        if (group == g).sum() > 1:
            assert float(plain[group == g].sum()) == pytest.approx(0, abs=1e-4)
        else:
            assert alone[group == g, 0].all()
