"""Halves: everything once, in order, and of about the same price."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents.halves import LEAST_ROWS, Half, halves, whole

LENGTHS = st.lists(st.integers(0, 300), min_size=LEAST_ROWS, max_size=64)


@given(LENGTHS, st.lists(st.integers(1, 20), max_size=12))
def test_two_halves_hold_every_row_and_text_once(lengths, counts):
    one, other = halves(np.array(lengths), counts)
    assert (one.first, one.last, other.last) == (0, other.first, len(lengths))
    assert (one.begin, one.end, other.end) == (0, other.begin, len(counts))
    assert min(one.last, other.last - other.first) >= LEAST_ROWS // 4


@given(LENGTHS)
def test_neither_half_costs_much_more_than_the_other(lengths):
    one, other = halves(np.array(lengths))
    price = np.array(lengths) + 64
    most = max(price)  # of the row at the cut
    cheap = LEAST_ROWS // 4 in (one.last, other.last - other.first)  # a half of four rows, however long
    assert cheap or abs(price[: one.last].sum() - price[other.first :].sum()) <= 2 * most


def test_long_rows_make_a_half_of_fewer():
    assert halves(np.array([16] * 16 + [96] * 16)) == [Half(0, 20, 0, 0), Half(20, 32, 0, 0)]
    assert halves(np.full(32, 40), [3, 3, 3, 3]) == [Half(0, 16, 0, 2), Half(16, 32, 2, 4)]
    assert whole(5, 2) == [Half(0, 5, 0, 2)]
