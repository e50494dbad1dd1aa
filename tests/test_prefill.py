import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents.prefill import groups_by_length


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_groups_hold_every_row_once_and_waste_little(counts):
    counts = np.array(counts)
    groups = groups_by_length(counts)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(counts)))
    for group in groups:
        padded = counts[group].max() * len(group)
        assert padded - counts[group].sum() <= max(0.25 * padded, 128 + counts[group].max())


def test_equal_lengths_are_one_group_and_long_texts_keep_short_ones_apart():
    assert [len(group) for group in groups_by_length(np.full(50, 100))] == [50]
    assert [group.tolist() for group in groups_by_length(np.array([5, 900, 5, 880]))] == [[1, 3], [0, 2]]
