import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents import prefix
from textgym_agents.prefix import share


def texts(*rows):
    out = np.full((len(rows), max(map(len, rows), default=1) + 2), -1, dtype=np.int64)
    for row, text in zip(out, rows, strict=True):
        row[: len(text)] = text
    return out, np.array([len(row) for row in rows], dtype=np.int64)


NONE = (np.zeros((0, 200), dtype=np.int64), np.zeros(0, dtype=np.int64))


@pytest.fixture(autouse=True)
def any_saving_counts(monkeypatch):
    monkeypatch.setattr(prefix, "LEAST_SAVED", 1)


def test_equal_texts_are_computed_once():
    sharing = share(*texts([5, 6], [7, 8], [5, 6]), *NONE)
    assert sharing.leaders.tolist() == [0, 1]
    assert sharing.leader_of.tolist() == [0, 1, 0]
    assert sharing.common == 0


def test_what_all_texts_begin_with_is_computed_once_but_never_a_whole_text():
    sharing = share(*texts([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3]), *NONE)
    assert sharing.common == 2  # the shortest text's last token must be run for its state
    assert len(sharing.leaders) == 3


def test_held_texts_lend_what_they_have_cached():
    held, _ = texts([1, 2, 9, 9], [1, 2, 3, 4])
    sharing = share(*texts([1, 2, 3, 4], [8, 8, 8, 8]), held, np.array([4, 3]))
    order = sharing.leaders.tolist()
    assert [sharing.donors[order.index(0)], sharing.copied[order.index(0)]] == [1, 3]
    assert sharing.copied[order.index(1)] == 0


def test_nothing_is_computed_for_all_that_one_held_text_has():
    held, lengths = texts([1, 2, 3, 4, 5])
    sharing = share(*texts([1, 2, 3, 6], [1, 2, 3, 7]), held, lengths)
    assert sharing.common == 0
    assert sharing.copied.tolist() == [3, 3]


def test_texts_that_share_too_little_are_left_alone(monkeypatch):
    assert share(*texts([1, 2], [3, 4]), *NONE) is None
    monkeypatch.setattr(prefix, "LEAST_SAVED", 64)
    assert share(*texts([1] * 70, [1] * 69), *NONE) is not None
    assert share(*texts([1] * 50, [1] * 49), *NONE) is None


@settings(max_examples=200)
@given(st.data())
def test_whether_sharing_may_pay_is_never_denied_where_it_does(data):
    few = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=5)
    new, held = texts(*data.draw(few)), texts(*data.draw(few))
    held = np.pad(held[0], ((0, 0), (0, 8)), constant_values=-1), held[1]  # as many columns as the new ones, or more
    least = data.draw(st.integers(1, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "LEAST_SAVED", least)
        quick = share(*new, *held)
        patch.setattr(prefix, "_may_save", lambda *texts: True)
        assert (quick is None) == (share(*new, *held) is None)
