"""Figures of episodes are pieces of the tape, whatever else ran beside them."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents import Step
from textgym_agents.tape import Ended, Tape


def ended(*episodes):
    """Episodes as (slot, begin, end)."""
    slot, begin, end = (np.array(column) for column in zip(*episodes, strict=True))
    return Ended(slot, slot, slot, begin, end, slot, np.zeros(len(slot), dtype=np.float32), torch.zeros(len(slot), 1))


def write(tape, slots, row, **kwargs):
    """Log-probs 10 * row + slot, values their negative."""
    figures = torch.tensor([10.0 * row + slot for slot in slots])
    tape.write(np.array(slots), Step(figures.long(), figures, -figures.double()), version=row // 2, **kwargs)


def test_a_slots_episodes_are_told_apart_and_read_in_the_order_asked_for():
    tape = Tape(3, torch.device("cpu"))
    for row, slots in enumerate([[0, 1, 2], [0, 2], [0, 1, 2], [1]]):
        write(tape, slots, row, mask_numbers=np.array(slots) + row)
    figures = tape.read(ended((1, 2, 4), (0, 0, 3), (1, 0, 1)))
    assert figures.logprobs.tolist() == [21, 31, 0, 10, 20, 1]
    assert figures.values.tolist() == (-figures.logprobs).tolist()
    assert figures.versions.tolist() == [1, 1, 0, 0, 1, 0]
    assert figures.mask_numbers.tolist() == [3, 4, 0, 1, 2, 1]
    assert (figures.values.dtype, figures.versions.dtype) == (torch.float32, torch.int64)


@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=2, max_size=8))
def test_what_is_forgotten_changes_nothing_of_what_is_running(rows):
    """Slot s runs from the first row after which it never pauses."""
    tape = Tape(4, torch.device("cpu"))
    begun = {}
    for row, slots in enumerate(rows):
        for slot in slots - begun.keys():
            tape.begin(np.array([slot]))
            begun[slot] = row
        begun = {slot: begin for slot, begin in begun.items() if slot in slots}
        write(tape, sorted(slots), row)
    running = np.array(sorted(begun))
    length = len(tape)
    tape.forget(running)
    assert len(tape) == length - min(begun.values())
    begins = tape.begun(running)
    figures = tape.read(ended(*zip(running, begins, [len(tape)] * len(running), strict=True)))
    expected = [10 * row + slot for slot in running for row in range(begun[slot], length)]
    assert figures.logprobs.tolist() == expected
    tape.forget(running[:0])
    assert len(tape) == 0
