"""What was asked for equals what is paid plus what accounts took."""

import numpy as np
import pytest
from conftest import build_episode

from textgym import Span, resolve
from textgym.ledger import Ledger


def test_a_ledger_that_adds_up_is_silent_and_one_that_does_not_says_what_is_missing():
    ledger = Ledger(15.0).take("clip", 4.0).take("clip", 2.0)
    ledger.check(9.0, 15.0, "episode 3")
    with pytest.raises(ValueError, match=r"ledger of episode 3 .* 15 was asked for, 9.5 is paid, accounts: clip 6; -0.5"):
        ledger.check(9.5, 15.0, "episode 3")
    with pytest.raises(ValueError, match="does not add up"):
        Ledger(0.0).check(2e-5, 0.0, "x")
    Ledger(0.0).check(0.9e-5, 0.0, "x")
    with pytest.raises(ValueError, match="does not add up"):
        Ledger(float("nan")).check(0.0, 0.0, "x")


def test_the_tolerance_grows_with_what_was_paid_not_with_what_is_left_of_it():
    Ledger(0.0).check(50.0, 1e7, "x")  # two rewards of 5e6 that cancel, in float32
    with pytest.raises(ValueError, match="does not add up"):
        Ledger(0.0).check(200.0, 1e7, "x")


def test_means_count_an_account_that_an_episode_lacks_as_nothing():
    mean = Ledger.mean([Ledger(2.0, {"clip": 1.0}), Ledger(4.0, {"kl": -2.0})])
    assert mean == Ledger(3.0, {"clip": 0.5, "kl": -1.0})
    assert Ledger.mean([]) == Ledger(0.0, {})


def test_each_criterion_and_weight_is_an_account():
    item = {"a": [Span(0, 2, 4.0)], "b": 2.0, "c": [1.0, 0.0, 1.0], "d": []}
    (resolved,) = resolve([item], [build_episode("abc")], {"a": 0.25, "c": -1.0})
    assert dict(resolved.criteria) == {"a": 4.0, "b": 2.0, "c": 2.0, "d": 0.0}
    assert resolved.ledger == Ledger(8.0, {"weight/a": 3.0, "weight/c": 4.0, "nothing": 0.0})
    assert float(resolved.token_rewards.sum()) == 8.0 - 7.0


def test_an_empty_list_is_no_reward_and_is_entered():
    resolved = resolve([[], 0.0, [0.0] * 3], [build_episode("abc")] * 3)
    assert [dict(item.ledger.accounts) for item in resolved] == [{"nothing": 0.0}, {}, {}]


@pytest.mark.parametrize("item", [3.5, np.float32(3.5), [1.0, 2.0, 0.5], np.array([1.0, 2.0, 0.5]), [Span(0, 1, 3.5)],
                                  [Span(0, 2, 1.5), Span(1, 3, 2.0, split="last")]])  # fmt: skip
def test_what_was_asked_for_is_read_from_the_item_itself(item):
    (resolved,) = resolve([item], [build_episode("abc")])
    assert resolved.ledger == Ledger(3.5)
