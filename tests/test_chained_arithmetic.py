"""Chained arithmetic: which steps an answer came from, by hand, and that the same step earns otherwise by what follows."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt
from textgym.tasks.chained_arithmetic import ChainedArithmetic


def play(text, numbers=(2, 3, 4), target=14, eos=True, **kwargs):
    task = ChainedArithmetic(**kwargs)
    env = textgym.TextGenEnv(task, info_text=True)
    prompt = Prompt(f"{','.join(map(str, numbers))}>{target}:", metadata={"numbers": numbers, "target": target})
    env.reset(seed=0, options={"prompt": prompt})
    for action in [*task.tokenizer.encode(text).tolist(), *([1] if eos else [])]:
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    return textgym.release(info)


def paid(text, **kwargs):
    """Say what is paid, by the characters up to and including the paid one."""
    release = play(text, **kwargs)
    return {text[: i + 1] or "<eos>": pytest.approx(r) for i, r in enumerate(release.token_rewards.tolist()) if r}


def test_the_steps_that_the_answer_came_from_share_a_mass_of_one():
    assert paid("3+4=7;7*2=14;") == {"3+4=7;": 0.5, "3+4=7;7*2=14;": 0.5}
    assert play("3+4=7;7*2=14;").is_success


def test_the_same_step_earns_pays_or_is_worth_nothing_by_what_follows_it():
    assert paid("3+4=7;7*2=14;")["3+4=7;"] == 0.5
    assert paid("3+4=7;3*4=12;12+2=14;") == {"3+4=7;": -0.1, "3+4=7;3*4=12;": 0.5, "3+4=7;3*4=12;12+2=14;": 0.5}
    assert paid("3+4=7;7+2=9;") == {}
    assert paid("3+4=7;7+2=8;") == {"3+4=7;7+2=8": -1.0}


def test_a_number_is_traced_to_the_prompt_first_and_then_to_the_step_that_first_made_it():
    # 4 was given, so 2+2=4 made nothing that was needed.
    assert paid("2+2=4;3+4=7;7*2=14;") == {"2+2=4;": -0.1, "2+2=4;3+4=7;": 0.5, "2+2=4;3+4=7;7*2=14;": 0.5}
    # Both steps make 7; the first one did.
    assert paid("3+4=7;4+3=7;7*2=14;") == {"3+4=7;": 0.5, "3+4=7;4+3=7;": -0.1, "3+4=7;4+3=7;7*2=14;": 0.5}


def test_both_numbers_of_a_step_are_traced():
    text = "2+3=5;4+5=9;5+9=14;"
    assert paid(text) == {"2+3=5;": pytest.approx(1 / 3), text[:12]: pytest.approx(1 / 3), text: pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("3+4=8;", "3+4=8"),  # false
        ("9+4=13;", "9"),  # 9 is not there
        ("3+9=12;", "3+9"),
        ("3-4=1;", "3-4=1"),
        ("3+4=7;7+4=11;11+2=13;3+4=7;", "3+4=7;7+4=11;11+2=13;3"),  # one step too many
        ("+", "+"),
        ("3+4=07;", "3+4=07"),
        ("3++", "3++"),
        ("3+4=7;>", "3+4=7;>"),
        ("3+4", "3+4"),  # breaks off: end-of-text, which holds no character
    ],
)
def test_what_breaks_a_chain_pays_on_its_own_token(text, at):
    for reward in ("dense", "scalar"):
        release = play(text, reward=reward)
        place = len(text) if at == "3+4" else len(at) - 1
        assert {i: r for i, r in enumerate(release.token_rewards.tolist()) if r} == {place: -1.0}, text
        assert not release.is_success


def test_a_text_without_steps_earns_nothing_and_one_that_is_cut_pays():
    assert paid("") == {}
    release = play("3+4=7;" * 3 + "3+4=7;" * 3, eos=False)
    assert release.token_rewards[18] == -1.0  # the first character of the fourth step


def test_the_scalar_reward_says_whether_the_answer_is_right():
    assert play("3+4=7;7*2=14;", reward="scalar").token_rewards.tolist() == [0.0] * 13 + [1.0]
    assert play("3+4=7;", reward="scalar").token_rewards.tolist() == [0.0] * 7


def ancestors(chain, numbers):
    """An independent account of what an answer came from: walk back from the last step."""
    source = {number: None for number in numbers}
    parents = []
    for i, (first, second, result) in enumerate(chain):
        parents.append({source[first], source[second]} - {None})
        source.setdefault(result, i)
    seen, open_ = set(), {len(chain) - 1}
    while open_:
        step = open_.pop()
        seen.add(step)
        open_ |= parents[step] - seen
    return seen


@given(seed=st.integers(0, 2**32 - 1))
def test_needed_steps_are_the_ancestors_of_the_last_one(seed):
    task = ChainedArithmetic(steps=6, numbers=2)
    prompt, text = task.demonstrations(np.random.default_rng(seed), 1)[0]
    chain = []
    for said in text.split(";")[:-1]:
        left, result = said.split("=")
        operation = next(o for o in "+-*" if o in left)
        first, second = map(int, left.split(operation))
        chain.append((first, second, int(result)))
    release = play(text, prompt.metadata["numbers"], prompt.metadata["target"], steps=6)
    good = ancestors(chain, prompt.metadata["numbers"])
    ends = np.flatnonzero([c == ";" for c in text])
    for i, end in enumerate(ends):
        assert release.token_rewards[end] == pytest.approx(1 / len(good) if i in good else -0.1)
    assert release.is_success


def test_targets_can_be_reached_and_are_none_of_the_numbers():
    task = ChainedArithmetic()
    rng = np.random.default_rng(0)
    for prompt in (task.sample(rng) for _ in range(200)):
        assert prompt.metadata["target"] not in prompt.metadata["numbers"]
        assert len(prompt.text) <= task.max_prompt_tokens


def test_metrics_count_wasted_steps():
    task = ChainedArithmetic()
    envs = textgym.TextGenVectorEnv(1, task, autoreset_mode="Disabled", keep_episodes=True)
    envs.reset(options={"prompt": Prompt("2,3,4>14:", metadata={"numbers": (2, 3, 4), "target": 14})})
    for token in [*task.tokenizer.encode("3+4=7;3*4=12;12+2=14;"), 1]:
        envs.step(np.array([token]))
    episodes = [episode for episode, _ in envs.take_episodes()]
    assert task.metrics(episodes) == {"well_formed": 1.0, "steps": 3.0, "wasted": 1.0}


def test_the_id_and_wrong_arguments():
    assert gym.make("textgym/ChainedArithmetic-v0", steps=4).unwrapped.rules.max_new_tokens == 37
    for arguments in ({"numbers": 1}, {"largest": 10}, {"steps": 1}, {"waste": -1.0}, {"reward": "sum"}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))}.* {next(iter(arguments.values()))!r}"):
            ChainedArithmetic(**arguments)
