"""The duel in two turns: what each line earns, by hand, and opponents of all kinds."""

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym import Prompt
from textgym.credit import LeaveOneOut
from textgym.parts import turns
from textgym.rules import Rules
from textgym.tasks.turn_duel import TurnDuel
from textgym.text import Text


def play(lines, drawn=52, **kwargs):
    task = TurnDuel(**kwargs)
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": Prompt("", metadata={"drawn": drawn})})
    for action in [token for line in lines for token in ([1] if line == "" else task.tokenizer.encode(line).tolist())]:
        _, reward, terminated, _, info = env.step(action)
        if terminated:
            break
    assert terminated
    return info["text"], textgym.release(info), reward


@pytest.mark.parametrize(
    ("first", "second", "rewards"),
    [
        (60, 53, (1.0, 1.0)),  # outbid by one
        (40, 54, (-1.0, 1 - 1 / 99)),
        (52, 99, (0.0, 1 - 46 / 99)),
        (99, 52, (1.0, 0.0)),
        (53, 51, (1.0, -1.0)),
    ],
)
def test_the_first_line_is_judged_by_the_reply_and_the_second_by_its_margin(first, second, rewards):
    lines = [f"A: {first:02d}\n", f"A: {second:02d}\n"]
    text, release, total = play(lines)
    assert text == f"{lines[0]}B: fc\n{lines[1]}"
    assert release.agent_mask.tolist() == [True] * 6 + [False] * 6 + [True] * 6
    expected = np.zeros(18)
    expected[[5, 17]] = rewards
    assert release.token_rewards == pytest.approx(expected)
    assert total == pytest.approx(sum(rewards), abs=1e-6)
    assert release.is_success == (min(rewards) > 0)
    scalar = play(lines, reward="scalar")[1].token_rewards
    assert scalar[17] == pytest.approx(sum(rewards), abs=1e-6) and not scalar[:17].any()


@pytest.mark.parametrize(
    ("lines", "token", "first"),
    [
        (["A: 4\n"], 4, None),
        (["B"], 0, None),
        (["A: 400"], 5, None),
        ([""], 0, None),
        (["A: 4", ""], 4, None),
        (["A: 60\n", "A: b"], 15, 1.0),
        (["A: 60\n", ""], 12, 1.0),
    ],
)
def test_a_line_of_another_form_ends_the_text_and_pays_on_what_broke_it(lines, token, first):
    lines = [*lines, ""] if lines[-1] and not lines[-1].endswith("\n") and len(lines[-1]) < 6 else lines
    _, release, _ = play(lines)
    paid = {i: r for i, r in enumerate(release.token_rewards.tolist()) if r}
    assert paid == ({token: -2.0} if first is None else {5: first, token: -2.0})
    assert not release.is_success


def test_scripts_say_what_they_say():
    assert play(["A: 47\n", "A: 50\n"], opponent="copycat")[0].splitlines()[1] == "B: eh"
    assert play(["A: 47\n", "A: 50\n"], opponent="topper")[0].splitlines()[1] == "B: ei"
    assert play(["A: 99\n", "A: 50\n"], opponent="topper")[0].splitlines()[1] == "B: jj"


def greedy(text):
    """A player that was trained elsewhere: sees the text so far, says its line."""
    assert text == "A: 47\n"
    return "B: hh\nA: 00\n"


def test_a_frozen_player_is_a_function_or_its_name():
    for opponent in (greedy, f"{__name__}:greedy"):
        text, release, _ = play(["A: 47\n", "A: 78\n"], opponent=opponent)
        assert text == "A: 47\nB: hh\nA: 78\n"  # what it says after its own line is not its to say
        assert release.token_rewards[[5, 17]].tolist() == [-1.0, 1.0]


def rambling(text):
    return "B: h"


def test_an_opponent_that_keeps_no_form_forfeits():
    text, release, _ = play(["A: 00\n", "A: 50\n"], opponent=rambling)
    assert text == "A: 00\nB: ?\nA: 50\n"
    assert release.token_rewards[release.token_rewards != 0].tolist() == [1.0]
    assert not release.is_success
    # What the agent itself writes is no answer of the opponent's.
    text, release, _ = play(["A: 00\n", "B: jj\n"], opponent=rambling)
    assert {i: r for i, r in enumerate(release.token_rewards.tolist()) if r} == {5: 1.0, 11: -2.0}


@pytest.mark.parametrize("opponent", ["random", "copycat", "topper", rambling])
def test_every_opponent_keeps_the_contract(opponent):
    textgym.checks.check_task(TurnDuel(opponent))


def test_score_and_metrics_by_hand():
    task = TurnDuel()
    envs = textgym.TextGenVectorEnv(2, task, autoreset_mode="Disabled", keep_episodes=True)
    envs.reset(options={"prompt": Prompt("", metadata={"drawn": 52})})
    one, other = (task.tokenizer.encode(text) for text in ("A: 60\nA: 53\n", "A: 40\nA: 52\n"))
    for actions in np.stack([one, other], axis=1):
        envs.step(actions)
    episodes = [episode for episode, _ in envs.take_episodes()]
    assert task.score(episodes) == pytest.approx((1.0 + 0.0) / 2)
    assert task.metrics(episodes) == {"first": 50.0, "margin": 1.0, "well_formed": 1.0, "forfeited": 0.0}


def test_the_id_and_wrong_arguments():
    env = gym.make("textgym/TurnDuel-v0", opponent="topper")
    assert env.unwrapped.rules.max_response_tokens == 18
    with pytest.raises(ValueError, match="'random', 'copycat', 'topper'"):
        TurnDuel("nobody")
    with pytest.raises(ValueError, match="no module 'nowhere'"):
        TurnDuel("nowhere:greedy")
    with pytest.raises(ValueError, match="'dense' and 'scalar'"):
        TurnDuel(reward="sum")


def test_a_part_of_a_game_without_its_first_line_is_judged_as_broken_there():
    task = TurnDuel("copycat")
    rules = Rules(task, assigner=LeaveOneOut(spans=turns))
    text = Text(rules, rules.prompt(np.random.default_rng(0), {}, 0), 0)
    codes = [text.write(token) for token in rules.tokenizer.encode("A: 47\nA: 48\n").tolist()]
    (release,) = rules.release([text.episode(codes[-1])], [0])  # 0 and 1; -2 without the first line, 0 - 1 without the second
    assert release.token_rewards[[5, 17]] == pytest.approx([1 - -2, 1 - -1 + 1 - 5])
    assert np.flatnonzero(release.token_rewards).tolist() == [5, 17]
