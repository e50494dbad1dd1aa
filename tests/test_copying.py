"""Copying: rewards by hand in all three modes, and what counts as wrong."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt
from textgym.tasks.copying import Copying


def play(task, prompt, text, eos=False):
    """Play ``text``, then perhaps end-of-text; the text must end just there."""
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": Prompt(prompt)})
    actions = [*env.rules.tokenizer.encode(text).tolist(), *([1] if eos else [])]
    ends = [env.step(action)[1:] for action in actions]
    assert [end[1] for end in ends] == [False] * (len(actions) - 1) + [True]
    assert not any(end[0] for end in ends[:-1])
    return ends[-1][0], ends[-1][3], textgym.release(ends[-1][3])


@pytest.mark.parametrize(("mode", "answer"), [("copy", "cabc"), ("reverse", "cbac"), ("sort", "abcc")])
def test_the_right_response_earns_a_quarter_per_symbol_and_ends_by_itself(mode, answer):
    task = Copying(mode)
    reward, info, release = play(task, "cabc>", answer)
    assert release.token_rewards.tolist() == [0.25] * 4
    assert (reward, info["ended_by"], release.is_success) == (1.0, "task", True)
    assert task.answer(Prompt("cabc>")) == answer


def test_only_symbols_in_their_place_are_paid():
    reward, _, release = play(Copying(), "cabc>", "cba>")
    assert release.token_rewards.tolist() == [0.25, 0.0, 0.0, 0.0]
    assert (reward, release.is_success) == (0.25, False)


def test_what_is_never_written_is_wrong():
    reward, info, release = play(Copying(), "cabc>", "ca", eos=True)
    assert release.token_rewards.tolist() == [0.25, 0.25, 0.0]
    assert (reward, info["ended_by"]) == (0.5, "eos")
    assert play(Copying(), "cabc>", "", eos=True)[0] == 0.0


def test_begin_of_text_is_no_symbol_and_the_limit_ends_the_text():
    env = textgym.TextGenEnv(Copying(), info_text=True)
    env.reset(options={"prompt": Prompt("cabc>")})
    for action in [0, *env.rules.tokenizer.encode("cab").tolist()]:
        _, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, info["ended_by"]) == (0.75, True, "length")


def test_lengths_of_a_range_are_all_drawn_and_each_ends_at_its_own():
    task = Copying(length=(2, 5), alphabet=3)
    assert (task.max_prompt_tokens, task.max_new_tokens) == (6, 5)
    rng = np.random.default_rng(0)
    prompts = [task.sample(rng).text for _ in range(200)]
    assert {len(prompt) - 1 for prompt in prompts} == {2, 3, 4, 5}
    assert set("".join(prompts)) == set("abc>")
    assert play(task, "ba>", "ba")[0] == 1.0


@given(seed=st.integers(0, 2**32 - 1), mode=st.sampled_from(["copy", "reverse", "sort"]), k=st.integers(1, 6))
def test_dense_and_scalar_rewards_add_up_to_the_same(seed, mode, k):
    rng = np.random.default_rng(seed)
    dense, scalar = Copying(mode, k, 3), Copying(mode, k, 3, reward="scalar")
    prompt = dense.sample(rng).text
    text = "".join(rng.choice(list("abc"), size=k))
    one, other = play(dense, prompt, text), play(scalar, prompt, text)
    assert one[0] == pytest.approx(other[0], abs=1e-6)
    assert not other[2].token_rewards[:-1].any()
    expected = {"copy": prompt[:-1], "reverse": prompt[-2::-1], "sort": "".join(sorted(prompt[:-1]))}[mode]
    assert one[2].token_rewards == pytest.approx([(a == b) / k for a, b in zip(text, expected, strict=True)])


def test_a_users_tokenizer_plays_the_same_task(byte_bpe):
    tokenizer = textgym.TextTokenizer(byte_bpe, eos_token_id=0)
    task = Copying(length=5, tokenizer=tokenizer)
    assert textgym.checks.check_task(task).episodes == 32 + 16
    env = textgym.TextGenEnv(task)
    env.reset(options={"prompt": Prompt("hello>")})
    ids = tokenizer.encode("hello")
    assert len(ids) < 5  # tokens of several symbols
    for i in ids:
        _, reward, terminated, _, _ = env.step(int(i))
    assert (reward, terminated) == (pytest.approx(1.0), True)


def test_the_id_and_wrong_arguments():
    assert gym.make("textgym/Copying-v0", mode="sort").unwrapped.action_space.n == 11
    with pytest.raises(ValueError, match="'copy', 'reverse' and 'sort'"):
        Copying("repeat")
    with pytest.raises(ValueError, match="length is"):
        Copying(length=(3, 2))
    with pytest.raises(ValueError, match="alphabet is 27"):
        Copying(alphabet=27)
    with pytest.raises(ValueError, match="'dense' and 'scalar'"):
        Copying(reward="sum")
