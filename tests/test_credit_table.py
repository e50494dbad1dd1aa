import pytest
from suite_kit import MyLast

from textgym.exact import Enumeration, credit_error
from textgym.suite.credit_table import CONTESTANTS, contestant, measure
from textgym.suite.setting import Setting


def test_a_row_is_the_measure_for_the_policy_of_its_seed():
    texts = Enumeration("probe_joint")
    expected = credit_error(texts, texts.random_logits(3), MyLast())
    found = measure(Setting("probe_joint", "suite_kit:MyLast", "exact", 1), 3)
    assert found["cosine"] == pytest.approx(1.0) == expected.cosine
    assert found["variance"] == expected.variance
    assert measure(Setting("probe_joint", "last", "exact", 1), 4)["variance"] != expected.variance


def test_where_the_truth_is_a_constant_total_a_sum_has_no_cosine():
    setting = Setting("probe_duel", "last", "exact", 1, options={"rows": "position"})
    assert measure(setting, 0)["cosine"] is None
    own = measure(Setting("probe_duel", "task's rewards", "exact", 1, options={"rows": "position"}), 0)
    assert own["cosine"] == pytest.approx(1.0)


def test_everyone_can_be_measured_on_a_small_probe():
    found = {name: measure(Setting("probe_reply", name, "exact", 1), 0) for name in CONTESTANTS}
    assert found["last"]["reward_calls"] == 0
    assert found["leave_one_out"]["reward_calls"] == 2
    assert found["uniform, whole stream"]["cosine"] == pytest.approx(1.0)


def test_who_is_not_there_is_told_with_who_is():
    with pytest.raises(ValueError, match=r"no assigner 'lst'.*'uniform, whole stream'"):
        contestant("lst")
