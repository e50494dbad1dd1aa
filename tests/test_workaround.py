"""The parts' judges by hand."""

import pytest
from conftest import play_text

from textgym.suite.reward_forms import in_form
from textgym.tasks.number_duel import NumberDuel
from textgym.tasks.three_sentences import ThreeSentences


def duel(text, **kwargs):
    release = play_text(in_form(NumberDuel(**kwargs), "sequential"), text)
    return release.token_rewards.tolist(), release.streams.tolist()


@pytest.mark.parametrize(("second", "earns"), [("jj", 1.0), ("ab", -1.0), ("ea", 0.0)])
def test_the_first_number_earns_nothing_and_the_second_is_judged_against_it(second, earns):
    paid, streams = duel(f"A: 40\nB: {second}\n")
    assert paid == [0.0] * 11 + [earns, 0.0]  # on the newline that ends B's part; then end-of-text, a part of its own
    assert streams == [0] * 6 + [1] * 6 + [2]


def test_digits_are_read_too_and_masses_are_the_tasks():
    assert duel("A: 40\nB: 41\n", numerals="digits", masses=(2.0, 0.0))[0][11] == 2.0
    assert duel("A: 40\nB: dj\n", numerals="digits", masses=(2.0, 0.0))[0][11] == -1.0


def test_a_part_of_another_form_pays_one_less_than_losing():
    assert duel("A: 4\n")[0] == [0, 0, 0, 0, -2, -2]
    assert duel("A: 40\nB: 4\n")[0] == [0] * 10 + [-2, 0]
    assert duel("A: 4\nB: jj\n")[0] == [0] * 4 + [-2] + [0] * 6 + [0]  # there is no number to judge B's against
    assert duel("A: 40\nB: jj\nA")[0][-2:] == [0, -2]


def test_sentences_are_judged_by_what_stands_before_them():
    release = play_text(in_form(ThreeSentences(), "sequential"), " cats see. birds see old trees. we.")
    assert release.token_rewards.tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1 / 3, 0, 0, 0])
    release = play_text(in_form(ThreeSentences(), "sequential"), " cats. you see. we see old trees. I.")
    assert release.token_rewards.tolist() == pytest.approx([0, 0, 0, 0, 1 / 3, 0, 0, 0, 0, 1 / 3, 0, -1, -1])


def test_a_sentence_of_another_form_costs_the_mass():
    release = play_text(in_form(ThreeSentences(mass=2.0), "sequential"), " cats see you like birds.")
    assert release.token_rewards.tolist() == [0, 0, 0, 0, 0, -2, -2]  # five words where four are allowed; then no sentence
