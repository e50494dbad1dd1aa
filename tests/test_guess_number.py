"""Guess the number: what each guess is paid, by hand, and the replies that are not the agent's."""

import math

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym import Prompt
from textgym.credit import excerpt
from textgym.rules import Rules
from textgym.tasks.guess_number import GuessNumber
from textgym.text import Text

LOG = math.log(11)


def play(number, actions, task=None):
    task = task or GuessNumber()
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": Prompt("", metadata={"number": number})})
    tokens = [1 if action == "<eos>" else int(env.rules.tokenizer.encode(action)[0]) for action in actions]
    for i, token in enumerate(tokens):
        obs, reward, terminated, truncated, info = env.step(token)
        assert (terminated or truncated) == (i == len(tokens) - 1), i
    return obs, reward, info, textgym.release(info)


def test_each_guess_is_paid_for_the_range_that_it_removed():
    obs, reward, info, release = play(7, ["5", "\n", "8", "\n", "7", "\n"])
    assert info["text"] == "5\nhigher\n8\nlower\n7\n"
    assert release.agent_mask.tolist() == [True, True, False, False, True, True, False, False, True, True]
    paid = release.token_rewards[[1, 5, 9]]
    expected = [math.log(11 / 5) / LOG, math.log(5 / 3) / LOG, math.log(3 / 1) / LOG]  # 10 left, 4 left, 2 left, found
    np.testing.assert_allclose(paid, expected, rtol=1e-6)
    assert reward == pytest.approx(1.0)
    assert (info["ended_by"], release.is_success) == ("stop", True)
    assert release.streams.tolist() == [0, 0, -1, -1, 0, 0, -1, -1, 0, 0]
    assert (obs >= 0).sum() == 11  # the replies are in the observation


def test_a_number_that_is_never_found_pays_less_than_one():
    _, reward, info, release = play(7, ["1", "\n", "2", "\n", "3", "\n"])
    assert reward == pytest.approx(math.log(11 / 7) / LOG)  # six numbers are left
    assert not release.is_success
    assert info["text"].count("higher") == 2  # the last guess is not answered


def test_guessing_what_is_excluded_earns_nothing():
    _, _, _, release = play(7, ["5", "\n", "3", "\n", "7", "\n"])
    assert release.token_rewards[5] == 0


@pytest.mark.parametrize(
    ("actions", "token"),
    [
        (["\n"], 0),
        (["<eos>"], 0),
        (["5", "<eos>"], 1),
        (["5", "5"], 1),
        (["higher", "\n"], 0),
        (["5", "\n", "lower", "5"], 4),
        (["5", "\n", "8", "lower"], 5),
    ],
)
def test_a_message_that_is_no_guess_pays_on_the_token_that_broke_it(actions, token):
    _, _, _, release = play(7, actions)
    assert np.flatnonzero(release.token_rewards < 0).tolist() == [token]
    assert release.token_rewards[token] == -1.0


def test_a_number_beyond_the_range_is_no_guess():
    _, reward, _, release = play(7, ["9", "9", "\n"], GuessNumber(size=50))
    assert reward == -1.0
    assert release.num_tokens == 3


def test_the_score_is_the_share_of_numbers_found():
    task = GuessNumber()
    envs = textgym.TextGenVectorEnv(2, task, autoreset_mode="Disabled", keep_episodes=True)
    envs.reset(seed=0, options={"prompt": Prompt("", metadata={"number": 3})})
    three, four, newline = (int(task.tokenizer.encode(text)[0]) for text in ("3", "4", "\n"))
    for actions in ([three, four], [newline, newline], [0, three], [0, newline]):
        envs.step(np.array(actions))
    (first, second) = [episode for episode, _ in envs.take_episodes()]
    assert (task.read(first), task.read(second)) == ([3], [4, 3])
    assert task.score([first, second]) == 1.0
    assert task.metrics([first, second]) == {"guesses": 1.5, "well_formed": 1.0}


def test_demonstrations_are_games_that_the_environment_would_play():
    task = GuessNumber(size=100, guesses=4)
    for prompt, messages in task.demonstrations(np.random.default_rng(0), 50):
        env = textgym.TextGenEnv(task, info_text=True)
        env.reset(options={"prompt": prompt})
        for i in task.tokenizer.encode("".join(messages[::2])):
            info = env.step(int(i))[4]
        assert info["text"] == "".join(messages)


def test_the_id_and_wrong_arguments():
    env = gym.make("textgym/GuessNumber-v0", size=20)
    assert env.unwrapped.rules.task.width == 2
    with pytest.raises(ValueError, match="size is 1"):
        GuessNumber(size=1)


def test_a_guess_above_or_below_what_is_left_does_not_widen_it_again():
    _, _, _, low = play(1, ["3", "\n", "8", "\n", "2", "\n"])
    assert low.token_rewards[5] == 0  # 8 was excluded by "lower than 3"
    assert low.token_rewards[9] == pytest.approx((math.log(4) - math.log(3)) / LOG)  # of 0, 1, 2 are 0 and 1 left
    _, _, _, high = play(8, ["6", "\n", "2", "\n", "7", "\n"])
    assert high.token_rewards[5] == 0
    assert high.token_rewards[9] == pytest.approx((math.log(4) - math.log(3)) / LOG)


def test_a_part_of_a_game_without_a_message_is_broken_by_the_next_one():
    rules = Rules(GuessNumber())
    text = Text(rules, rules.prompt(np.random.default_rng(0), {"prompt": Prompt("", metadata={"number": 7})}, 0), 0)
    codes = [text.write(token) for token in rules.tokenizer.encode("5\n8\n7\n").tolist()]
    whole = text.episode(codes[-1])
    keep = ~((whole.turns == 1) & whole.agent_mask)
    part = excerpt(whole, keep)
    assert rules.task.read(part) == [5, None, 7]
    (paid,) = rules.task.rewards([part])
    assert paid == pytest.approx([0, math.log(11 / 5) / LOG, 0, 0, 0, 0, 0, -1])
