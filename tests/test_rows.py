import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents.rows import SlotRows


def array(*numbers):
    return np.array(numbers, dtype=np.int64)


def test_new_slots_get_rows_in_order_and_freed_rows_are_filled_first():
    rows = SlotRows(20)
    rows.take(np.arange(16))
    assert rows.row_of[:16].tolist() == list(range(16))
    rows.free(array(3, 5))
    assert len(rows) == 16
    source, _ = rows.take(array(17))
    assert len(source) == 0
    assert rows.row_of[17] == 3


def test_gaps_beyond_an_eighth_are_closed_by_the_last_rows():
    rows = SlotRows(8)
    rows.take(np.arange(8))
    rows.cached[:] = 5
    rows.free(array(0, 4))
    source, target = rows.take(array(1, 2, 3, 5, 6, 7))
    assert (source.tolist(), target.tolist()) == ([6, 7], [0, 4])
    assert len(rows) == 6
    assert rows.row_of.tolist() == [-1, 1, 2, 3, -1, 5, 0, 4]
    assert rows.cached.tolist() == [0, 5, 5, 5, 0, 5, 5, 5]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_slot_keeps_one_row_and_its_text_through_any_history(data):
    """A table of texts, moved as told, always holds each slot's own."""
    rows, held, live = SlotRows(12), {}, set()
    for _ in range(25):
        gone = data.draw(st.sets(st.sampled_from(sorted(live)))) if live else set()
        rows.free(np.array(sorted(gone), dtype=np.int64))
        live -= gone
        live |= data.draw(st.sets(st.integers(0, 11), min_size=0 if live else 1))
        slots = np.array(sorted(live), dtype=np.int64)
        source, target = rows.take(slots)
        copies = [held[row] for row in source.tolist()]
        held |= dict(zip(target.tolist(), copies, strict=True))
        for slot in slots.tolist():
            row = int(rows.row_of[slot])
            assert rows.slot_of[row] == slot
            if rows.cached[slot]:
                assert held[row] == slot
            rows.cached[slot] = 1
            held[row] = slot
        assert len(set(rows.row_of[slots].tolist())) == len(slots)
        assert len(rows) - len(slots) <= max(len(rows) // 8, 0)
