import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents.rows import SlotRows


def array(*numbers):
    return np.array(numbers, dtype=np.int64)


def test_new_slots_get_rows_in_order_and_freed_rows_are_filled_first():
    rows = SlotRows(20)
    rows.take(np.arange(16), np.full(16, 5))
    assert rows.row_of[:16].tolist() == list(range(16))
    rows.free(array(3, 5))
    source, _ = rows.take(np.arange(16)[[0, 1, 2, 4]], np.full(4, 5))
    assert len(source) == 0  # two gaps of 16 are left alone
    assert len(rows) == 16
    source, target = rows.take(array(17), array(5))
    assert (source.tolist(), target.tolist()) == ([15], [3])
    assert rows.row_of[17] == 5


def test_gaps_beyond_an_eighth_are_closed_by_the_last_rows():
    rows = SlotRows(8)
    rows.take(np.arange(8), np.full(8, 5))
    rows.cached[:] = 5
    rows.free(array(0, 4))
    live = array(1, 2, 3, 5, 6, 7)
    source, target = rows.take(live, np.full(6, 6))
    assert (source.tolist(), target.tolist()) == ([6, 7], [0, 4])
    assert len(rows) == 6
    assert rows.row_of.tolist() == [-1, 1, 2, 3, -1, 5, 0, 4]
    assert rows.cached.tolist() == [0, 5, 5, 5, 0, 5, 5, 5]


def test_texts_stand_sorted_by_classes_of_length_when_rows_are_given():
    rows = SlotRows(6)
    rows.take(np.arange(4), array(100, 10, 100, 10))
    rows.cached[:4] = 100, 10, 100, 10
    assert rows.slot_of.tolist() == [1, 3, 0, 2]
    source, target = rows.take(array(4, 5), array(5, 40))
    assert rows.slot_of[:3].tolist() in ([1, 3, 4], [1, 4, 3])
    assert rows.slot_of[3] == 5
    assert sorted(rows.slot_of[4:].tolist()) == [0, 2]
    assert len(source) == len(target) <= 2


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
        lengths = rows.cached[slots] + data.draw(st.integers(1, 40))
        source, target = rows.take(slots, lengths)
        copies = [held[row] for row in source.tolist()]
        held |= dict(zip(target.tolist(), copies, strict=True))
        for slot in slots.tolist():
            row = int(rows.row_of[slot])
            assert rows.slot_of[row] == slot
            if rows.cached[slot]:
                assert held[row] == slot
            held[row] = slot
        rows.cached[slots] = lengths
        assert len(set(rows.row_of[slots].tolist())) == len(slots)
        assert len(rows) - len(slots) <= len(rows) // 8
