import gymnasium as gym
import numpy as np
import pytest
from conftest import play_text

import textgym
from textgym import PromptTask, RewardForm, Span, TextGenEnv
from textgym.assign import resolve_assigner
from textgym.credit import KeepLast, LeaveOneOut, Uniform
from textgym.rules import Rules
from textgym.tasks.number_duel import NumberDuel


class Half:
    """Pays half of the score on the last token, and says so."""

    causal = True
    conserves = False

    def __call__(self, scores, episodes):
        return [np.array([0.0] * (len(e.ids) - 1) + [score / 2]) for score, e in zip(scores, episodes, strict=True)]


class Liar(Half):
    conserves = True


def counted(episodes):
    return [{"length": float(len(e.text)), "a": float(e.text.count("a"))} for e in episodes]


def test_criteria_weights_and_streams_of_spans_outlive_the_assigner(letters):
    def reward(episodes):
        return [{"x": [Span(0, 1, 4.0, stream=1)], "y": 2.0} for _ in episodes]

    released = play_text(PromptTask(["a"], letters, reward, weights={"x": 0.5}, assigner="uniform"), "abc")
    assert released.token_rewards.tolist() == [1.0] * 4
    assert released.streams.tolist() == [1, 0, 0, 0]
    assert dict(released.criteria) == {"x": 4.0, "y": 2.0}
    assert (released.ledger.asked, dict(released.ledger.accounts)) == (6.0, {"weight/x": 2.0})


def test_what_an_assigner_takes_is_in_the_ledger_and_a_false_declaration_is_an_error(letters):
    released = play_text(PromptTask(["a"], letters, counted, assigner=Half()), "ab")
    assert released.token_rewards.tolist() == [0, 0, 1.5]
    assert (released.ledger.asked, dict(released.ledger.accounts)) == (3.0, {"assigner": 1.5})
    with pytest.raises(ValueError, match="ledger of episode 0 does not add up"):
        play_text(PromptTask(["a"], letters, counted, assigner=Liar()), "ab")


@pytest.mark.parametrize("name", ["uniform", "shapley", "prefix_difference", "leave_one_out", "discounted", "last"])
@pytest.mark.parametrize("door", ["env", "vec", "task", "form"])
def test_every_door_takes_an_assigner_by_name(door, name):
    """Of a task that pays its own tokens: the assigner splits what these add up to."""
    if door == "env":
        env = gym.make("textgym/NumberDuel-v0", assigner=name, masses=(3.0, -1.0))
    elif door == "vec":
        env = gym.make_vec("textgym/NumberDuel-v0", num_envs=1, assigner=name, masses=(3.0, -1.0))
    elif door == "task":
        task = NumberDuel(masses=(3.0, -1.0))
        task.assigner = name
        env = TextGenEnv(task)
    else:
        env = TextGenEnv(RewardForm(NumberDuel(masses=(3.0, -1.0)), assigner=name))
    env.reset(seed=0)
    rules = env.unwrapped.rules
    info = {}
    for token in [*rules.tokenizer.encode("A: 12\nB: ca\n"), rules.eos_token_id]:
        *_, info = env.step(int(token) if door != "vec" else np.array([token]))
    (released,) = textgym.releases(info) if door == "vec" else [textgym.release(info)]
    assert float(released.token_rewards.sum()) == pytest.approx(2.0, abs=1e-6)
    assert released.ledger.asked == pytest.approx(2.0)
    assert {*released.streams.tolist()} == {0, 1}


def test_workers_in_other_processes_take_one_too():
    envs = gym.make_vec(
        "TextGen-v0", num_envs=1, task="number_duel", assigner="leave_one_out", reward_workers=1, reward_worker_kind="process"
    )
    envs.reset(seed=0)
    for token in [*envs.unwrapped.rules.tokenizer.encode("A: 12\nB: ca\n"), envs.unwrapped.rules.eos_token_id]:
        envs.step(np.array([token]))
    (released,) = envs.unwrapped.drain()
    envs.close()
    assert np.count_nonzero(released.token_rewards) > 2


def test_what_is_no_assigner_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="no assigner 'shap'; there are last, uniform"):
        resolve_assigner("shap")
    with pytest.raises(TypeError, match="int is not an assigner"):
        resolve_assigner(3)
    with pytest.raises(ValueError, match="missing a required argument"):
        resolve_assigner(KeepLast)
    assert isinstance(resolve_assigner("textgym.credit:LeaveOneOut"), LeaveOneOut)
    with pytest.raises(ValueError, match="give one of the two"):
        RewardForm(NumberDuel(), "scalar", assigner=Uniform())


def test_the_scalar_form_leaves_the_tasks_assigner_out():
    task = NumberDuel(masses=(3.0, -1.0))
    task.assigner = "uniform"
    assert np.flatnonzero(play_text(RewardForm(task, "scalar"), "A: 12\nB: ca\n").token_rewards).tolist() == [12]
    assert Rules(RewardForm(task, streams=False)).assigner == Uniform()
