import math

import pytest
import torch
from textgym_agents.q_losses import conservative_loss, expectile_loss, q_targets, stream_successors

STREAMS = torch.tensor([[0, 1, -1, 0, 1], [0, 0, 0, -1, -1]])
MASK = STREAMS >= 0


def test_the_successor_is_the_next_agent_token_of_the_same_stream():
    assert stream_successors(STREAMS, MASK).tolist() == [[3, 4, -1, -1, -1], [1, 2, -1, -1, -1]]


def test_targets_look_one_step_ahead_inside_the_stream():
    rewards = torch.tensor([[1.0, 2.0, 0.0, 3.0, 4.0], [0.0, 0.0, 6.0, 0.0, 0.0]])
    values = torch.tensor([[10.0, 20.0, 99.0, 30.0, 40.0], [1.0, 2.0, 3.0, 99.0, 99.0]])
    final, cut = torch.tensor([7.0, 100.0]), torch.tensor([False, True])
    targets = q_targets(rewards, values, STREAMS, MASK, final, cut, gamma=0.5)
    # episode 0 terminated: its last tokens have nothing ahead; episode 1 was cut, so V(final) stands ahead of its last token
    assert targets.tolist() == [[1 + 15, 2 + 20, 0, 3, 4], [1, 1.5, 6 + 50, 0, 0]]


def test_padding_is_never_read_F02():
    rewards, values = torch.ones(1, 3), torch.tensor([[1.0, 2.0, math.nan]])
    streams = torch.tensor([[0, 0, -1]])
    targets = q_targets(rewards, values, streams, streams >= 0, torch.tensor([math.nan]), torch.tensor([False]), gamma=1.0)
    assert targets.tolist() == [[3, 1, 0]]


def test_the_expectile_weighs_what_lies_above_more():
    values = torch.tensor([0.0, 0.0])
    # u = 2 weighs .7, u = -1 weighs .3
    assert float(expectile_loss(values, torch.tensor([2.0, -1.0]), 0.7)) == pytest.approx((0.7 * 4 + 0.3 * 1) / 2)
    assert float(expectile_loss(values, torch.tensor([2.0, -1.0]), 0.5)) == pytest.approx(0.5 * (4 + 1) / 2)


def test_a_high_expectile_draws_v_to_the_best_q():
    q = torch.tensor([0.0, 1.0, 5.0])
    v = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([v], lr=0.5)
    for _ in range(2000):
        optimizer.zero_grad()
        expectile_loss(v.expand(3), q, 0.99).backward()
        optimizer.step()
    # the root of .99 (5 - v) = .01 (v - 0) + .01 (v - 1)
    assert v.item() == pytest.approx((0.99 * 5 + 0.01) / 1.01, abs=1e-3)


def test_no_gradient_flows_from_v_into_q():
    q = torch.tensor([1.0], requires_grad=True)
    values = torch.zeros(1, requires_grad=True)
    expectile_loss(values, q, 0.7).backward()
    assert q.grad is None
    assert values.grad is not None


def test_the_conservative_term_is_a_cross_entropy():
    q = torch.tensor([[0.0, math.log(3.0)]])
    assert float(conservative_loss(q, torch.tensor([1]))) == pytest.approx(-math.log(3 / 4))
