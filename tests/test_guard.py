"""Third-party agents and policies that break the protocol are told so by name."""

import re

import gymnasium
import pytest
import torch
from agent_kit import play_kit
from textgym_agents import Step, collect
from textgym_agents.guard import (
    AgentError,
    Metered,
    check_agent,
    check_figures,
    check_policy,
    check_step,
    name_of,
)


def step(n=3, **changes):
    fields = {"tokens": torch.zeros(n, dtype=torch.int64), "logprobs": torch.full((n,), -1.0), "values": torch.zeros(n)}
    return Step(**{**fields, **changes})


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (None, "gave None whose tokens is None; allowed is Step(tokens int64 (3,)"),
        (step(tokens=[0, 1, 2]), "whose tokens is a list"),
        (step(tokens=torch.zeros(3, 1, dtype=torch.int64)), "tokens of shape (3, 1) and dtype torch.int64; allowed is Step"),
        (step(n=2), "tokens of shape (2,)"),
        (step(tokens=torch.zeros(3)), "tokens of shape (3,) and dtype torch.float32"),
        (step(tokens=torch.tensor([float("nan")] * 3)), "dtype torch.float32"),
        (step(tokens=torch.zeros(3, dtype=torch.int32)), "tokens of dtype torch.int32; allowed"),
        (step(tokens=torch.tensor([0, 11, 2])), "the token 11 for row 1; allowed are token ids 0..10"),
        (step(tokens=torch.tensor([0, 1, -1])), "the token -1 for row 2"),
        (step(logprobs=torch.tensor([-1.0, float("nan"), -1.0])), "logprobs that are nan for row 1; they must be finite"),
        (step(logprobs=torch.tensor([-1.0, -float("inf"), -1.0])), "logprobs that are -inf for row 1"),
        (step(logprobs=torch.zeros(3, dtype=torch.int64)), "logprobs of shape (3,) and dtype torch.int64"),
        (step(values=torch.tensor([0.0, 0.0, float("inf")])), "values that are inf for row 2"),
        (step(values=torch.zeros(3, device="meta")), "values on meta but the observation is on cpu"),
    ],
    ids=lambda x: x[:30] if isinstance(x, str) else "",
)
def test_what_is_no_step_is_named_with_what_is_allowed(given, match):
    with pytest.raises(AgentError, match=re.escape(match)) as caught:
        check_step(given, 3, 11, "my.module:Mine", torch.device("cpu"))
    assert "my.module:Mine" in str(caught.value)


def test_a_right_step_passes():
    check_step(step(), 3, 11, "x", torch.device("cpu"))
    check_step(step(logprobs=torch.zeros(3, dtype=torch.float64)), 3, 11, "x")


class Raises:
    def act(self, obs, slots):
        raise RuntimeError("the model is gone")

    def reset_slots(self, slots): ...


class NoNumbers(Raises):
    def act(self, obs, slots):
        return step(len(slots), logprobs=torch.full((len(slots),), float("nan")))


def test_policies_are_checked_where_they_are_played(letters):
    _, envs = play_kit(letters)
    with pytest.raises(AgentError, match=r"test_guard:NoNumbers gave logprobs that are nan for row 0"):
        collect(envs, NoNumbers(), 8)
    with pytest.raises(RuntimeError, match="the model is gone") as caught:
        collect(envs, Raises(), 8)
    assert caught.value.__notes__ == ["raised by act of the policy test_guard:Raises, for slots 0, 1, 2, 3, 4, 5, 6, 7"]


class Bare:
    policy = Raises()

    def learn(self, envs, budget, callback=None): ...
    def save(self, folder): ...
    def load(self, folder): ...


def test_agents_that_lack_something_are_told_what():
    check_agent(Bare())
    check_policy(Bare())

    class NoSave:
        policy, learn, load = None, print, print

    with pytest.raises(TypeError, match=r"test_guard:.*NoSave is not an agent: it lacks save; an agent has policy, learn\("):
        check_agent(NoSave())

    class Two(Bare):
        def learn(self, envs, budget): ...

    with pytest.raises(TypeError, match=r"learn of .*Two: too many positional arguments; it is called as learn\(envs, budget"):
        check_agent(Two())

    class Uncallable(Bare):
        save = 3

    with pytest.raises(TypeError, match=r"it lacks save\(\)"):
        check_agent(Uncallable())

    class Silent(Bare):
        policy = None

    with pytest.raises(TypeError, match="Silent is None, which lacks act and reset_slots"):
        check_policy(Silent())


@pytest.mark.parametrize(
    ("figures", "match"),
    [
        (7, "called callback with a int; give a dict"),
        ({"loss": 1.0}, "episodes None; tell how many"),
        ({"episodes": 8, "loss": torch.tensor(1.0)}, "'loss': tensor(1.), a Tensor; figures are real numbers"),
        ({"episodes": float("nan")}, "episodes nan"),
        ({"episodes": 8, 3: 1.0}, "3: 1.0"),
    ],
    ids=str,
)
def test_figures_that_are_none_are_refused(figures, match):
    with pytest.raises(AgentError, match=re.escape(match)):
        check_figures(figures, "x")
    check_figures({"episodes": 8, "loss": float("nan"), "done": True}, "x")


def test_episodes_are_counted_and_an_agent_that_never_stops_is_stopped(letters):
    policy, envs = play_kit(letters)
    metered = Metered(envs, 16, "my.module:Endless")
    assert isinstance(metered, gymnasium.vector.VectorWrapper)
    collect(metered, policy, 16)
    assert metered.ended == 16
    for _ in range(3):
        collect(metered, policy, 8)  # twice the budget and a text per slot: whole collections may be more than the budget
    with pytest.raises(
        AgentError, match=r"my.module:Endless was given a budget of 16 episodes and has played 4\d; allowed are 40"
    ):
        collect(metered, policy, 8)


def test_names_are_those_that_the_command_line_takes():
    assert name_of(Raises) == name_of(Raises()) == "test_guard:Raises"
