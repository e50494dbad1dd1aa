import numpy as np
import pytest
from conftest import play_text

from textgym.suite.reward_forms import REWARD_FORMS, in_form
from textgym.tasks.guess_number import GuessNumber
from textgym.tasks.number_duel import NumberDuel

TEXT = "A: 90\nB: ab\n"


@pytest.mark.parametrize(
    ("reward", "rewards", "streams"),
    [
        ("streams", {4: 1.0, 10: -1.0}, [0] * 6 + [1] * 7),
        ("dense", {4: 1.0, 10: -1.0}, [0] * 13),
        ("scalar", {}, [0] * 13),
        ("last", {}, [0] * 13),
        ("suite_kit:MyLast", {}, [0] * 13),
    ],
)
def test_each_form_of_the_duel_by_hand(reward, rewards, streams):
    release = play_text(in_form("number_duel", reward), TEXT)
    assert {int(i): float(release.token_rewards[i]) for i in np.flatnonzero(release.token_rewards)} == rewards
    assert release.streams.tolist() == streams


def test_an_assigner_splits_the_sum_and_asks_the_task_for_parts():
    release = play_text(in_form("copying", "prefix_difference", length=3, alphabet=4), "abc")
    task = in_form("copying", "prefix_difference")
    assert task.assigner.reward_calls == 0
    assert release is not None


def test_a_task_s_own_argument_may_be_called_reward():
    release = play_text(in_form("copying", "dense", reward="scalar"), "")
    assert release is not None
    assert in_form("copying", "streams", reward="scalar").reward == "scalar"


def test_every_form_keeps_the_sum_but_the_workaround():
    duel = NumberDuel(masses=(1.0, 0.0))
    for reward in [*REWARD_FORMS, "uniform", "discounted"]:
        total = float(play_text(in_form(duel, reward), TEXT).token_rewards.sum())
        assert total == pytest.approx(0.0 if reward == "sequential" else 1.0)


def test_what_is_not_there_is_told_with_what_is():
    with pytest.raises(ValueError, match=r"no assigner 'densee'.*scalar, dense, streams, sequential"):
        in_form("number_duel", "densee")
    with pytest.raises(ValueError, match=r"GuessNumber has no sequential form; NumberDuel, ThreeSentences have one"):
        in_form(GuessNumber(), "sequential")
