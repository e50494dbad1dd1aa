"""What both doors share, seen through the scalar one."""

import numpy as np
import pytest
from test_env import make, write, zeros

import textgym
from textgym import Prompt, PromptTask, Span, Task


def test_stop_string_ends_at_the_token_that_completes_it_and_stays_F24():
    tokenizer = textgym.symbol_tokenizer(["a", "b", ".x", "."])
    env = textgym.TextGenEnv(
        prompts=["a"], tokenizer=tokenizer, reward_fn=lambda e: [[Span(0, len(x.text), 1.0)] for x in e], stop=["b."]
    )
    env.rules.info_text = True
    env.reset(seed=0)
    assert [env.step(i)[2] for i in (2, 5, 3)] == [False, False, False]  # "a", ".", "b": not yet
    _, reward, terminated, truncated, info = env.step(4)  # ".x" completes "b." and brings an x along
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["text"], info["ended_by"], info["num_tokens"]) == ("a.b.x", "stop", 4)  # nothing cut, nothing invented


def test_the_task_can_end_an_episode(letters):
    class Fixed(PromptTask):
        def ended(self, prompt, ids):
            return len(ids) == 2

    task = Fixed(["a"], letters, zeros)
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0)
    assert not env.step(2)[2]
    assert env.step(2)[4]["ended_by"] == "task"


def test_streams_come_from_the_task_or_from_spans_but_not_both(letters):
    spans = lambda episodes: [[Span(0, 1, 1.0, stream=1)] for _ in episodes]  # noqa: E731
    streams = lambda episodes: [np.zeros(len(e.ids), int) for e in episodes]  # noqa: E731
    env = make(letters, spans)
    env.reset(seed=0)
    assert textgym.release(write(env, "ab")[0][4]).streams.tolist() == [1, 0, 0]
    env = make(letters, zeros, streams_fn=lambda episodes: [np.arange(len(e.ids)) for e in episodes])
    env.reset(seed=0)
    assert textgym.release(write(env, "ab")[0][4]).streams.tolist() == [0, 1, 2]
    env = make(letters, spans, streams_fn=streams)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="give one of the two"):
        write(env, "ab")


def test_criteria_are_in_the_info_before_weighting(letters):
    env = make(letters, lambda e: [{"short": 1.0, "long": 2.0}], weights={"long": 0.5})
    env.reset(seed=0)
    (_, reward, _, _, info), _ = write(env, "a")
    assert (reward, info["criteria/short"], info["criteria/long"]) == (2.0, 1.0, 2.0)


def test_a_reward_function_that_raises_names_the_episode(letters):
    env = make(letters, lambda episodes: 1 / 0)
    env.reset(seed=0)
    with pytest.raises(ZeroDivisionError) as error:
        write(env, "a")
    assert "episodes [0]" in error.value.__notes__[0]


def test_a_sampled_prompt_that_does_not_fit_is_named_at_reset(letters):
    class Long(Task):
        tokenizer, max_prompt_tokens, max_new_tokens = letters, 2, 4

        def sample(self, rng):
            return Prompt("abcdef")

        def rewards(self, episodes):
            return zeros(episodes)

    with pytest.raises(ValueError, match="'abcdef'"):
        textgym.TextGenEnv(Long()).reset(seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_prompt_tokens": 1.5}, "max_prompt_tokens is 1.5"),
        ({"length_limit": "cut"}, "'terminate' and 'truncate'"),
        ({"weights": {"a": float("nan")}}, r"weights\['a'\]"),
        ({"stop": [""]}, "not empty"),
        ({"observation": "text"}, "'tokens' and 'dict'"),
    ],
)
def test_wrong_options_are_refused_at_construction(letters, changes, message):
    with pytest.raises(ValueError, match=message):
        make(letters, **changes)


def test_only_the_length_limit_truncates_F05(letters):
    env = make(letters, max_new_tokens=4, length_limit="truncate", stop=["b"])
    env.reset(seed=0)
    (_, _, terminated, truncated, _), _ = write(env, "ab", eos=False)
    assert (terminated, truncated) == (True, False)


def test_a_stop_string_that_could_never_be_found_is_refused(letters):
    with pytest.raises(ValueError, match=r"special token '</s>' is left out of texts"):
        make(letters, stop=["a</s>"])
