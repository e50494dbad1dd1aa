"""A plan of a pass is plain numbers; policies' tests run it."""

import numpy as np
from textgym_agents.plan import Plan


def test_rows_that_sit_out_run_token_0_into_the_spare_column():
    plan = Plan(np.array([3, 0]), 5, spare=9)
    plan.put([7, 8], np.array([2, 4]), np.array([3, 5]))
    assert [tensor.tolist() for tensor in plan.tensors] == [[8, 0, 0, 7, 0], [4, 9, 9, 2, 9]]
    assert plan.lengths.tolist() == [5, 0, 0, 3, 0]
    assert plan.at.tolist() == [3, 0]


def test_who_leaves_sits_out_and_the_others_go_on():
    plan = Plan(np.array([3, 0, 1]), 4, spare=9)
    plan.put([7, 8, 6], np.array([2, 4, 1]), np.array([3, 5, 2]))
    plan.leave([1], [0, 2])
    assert [tensor.tolist() for tensor in plan.tensors] == [[0, 6, 0, 7], [9, 1, 9, 2]]
    assert plan.lengths.tolist() == [0, 2, 0, 3]
    plan.put([5, 4], np.array([3, 2]), np.array([4, 3]))
    assert [tensor.tolist() for tensor in plan.tensors] == [[0, 4, 0, 5], [9, 2, 9, 3]]
    assert (plan.at.tolist(), plan.rows.tolist()) == ([3, 1], [3, 1])


def test_going_on_is_one_column_further():
    plan, other = (Plan(np.array([3, 0, 1]), 5, spare=9) for _ in range(2))
    plan.put(0, np.array([2, 4, 1]), np.array([3, 5, 2]))
    plan.say([7, 8, 6])
    other.put([7, 8, 6], np.array([2, 4, 1]), np.array([3, 5, 2]))
    plan.leave([1], [0, 2])
    other.leave([1], [0, 2])
    for _ in range(2):
        assert [tensor.tolist() for tensor in plan.tensors] == [tensor.tolist() for tensor in other.tensors]
        assert plan.lengths.tolist() == other.lengths.tolist()
        plan.go_on()
        plan.say([5, 4])
        other.put([5, 4], other.columns[[3, 1]] + 1, other.lengths[[3, 1]] + 1)
