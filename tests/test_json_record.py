"""JSON records: which token pays for what, by hand."""

import json

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt
from textgym.tasks.json_record import FIELDS, JsonRecord


def play(prompt, text, eos=True, **kwargs):
    task = JsonRecord(**kwargs)
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": Prompt(prompt)})
    for action in [*task.tokenizer.encode(text).tolist(), *([1] if eos else [])]:
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    return task, info["text"], textgym.release(info)


def paid(prompt, text, **kwargs):
    """Say what is paid, by the text up to and including the paid token; None stands for end-of-text."""
    task, _, release = play(prompt, text, **kwargs)
    ids = task.tokenizer.encode(text)
    return {
        task.tokenizer.decode(ids[: i + 1]) if i < len(ids) else None: pytest.approx(r)
        for i, r in enumerate(release.token_rewards.tolist())
        if r
    }


def test_each_right_field_earns_its_share_on_its_value():
    assert paid("tag,id>", '{"id":7,"tag":"abc"}') == {'{"id":7': 0.5, '{"id":7,"tag":"abc"': 0.5}
    assert play("tag,id>", '{"id":7,"tag":"abc"}')[2].is_success
    assert paid("on>", '{"on":false}') == {'{"on":false': 1.0}


@pytest.mark.parametrize(
    ("text", "rewards"),
    [
        ('{"id":"a","tag":"b"}', {'{"id":"a"': -0.5, '{"id":"a","tag":"b"': 0.5}),  # the wrong type
        ('{"id":true,"tag":"b"}', {'{"id":true': -0.5, '{"id":true,"tag":"b"': 0.5}),  # true is no whole number
        ('{"id":7}', {'{"id":7': 0.5, None: -0.5}),  # missing
        ('{"id":7,"tag":"b","on":true}', {'{"id":7': 0.5, '{"id":7,"tag":"b"': 0.5, '{"id":7,"tag":"b","on":true': -0.5}),
        ('{"id":7,"tag":"b","id":8}', {'{"id":7,"tag":"b"': 0.5, '{"id":7,"tag":"b","id":8': -0.5}),  # twice
        ("{}", {None: -1.0}),
    ],
)
def test_what_is_wrong_pays_where_it_stands(text, rewards):
    assert paid("id,tag>", text) == rewards
    assert not play("id,tag>", text)[2].is_success


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('{"id":7,}', '{"id":7,}'),  # a name was due
        ('{"id"7}', '{"id"7'),
        ('{"id":07}', '{"id":07'),
        ('{"id":7}}', '{"id":7}}'),
        ('{"id":"a}', '{"id":"'),  # the quote that is never closed
        ('{"id":7', None),
        ("", None),
        ("7", None),  # JSON, but no object
        ("[]", None),
    ],
)
def test_what_is_no_object_pays_only_where_it_breaks(text, at):
    assert paid("id>", text) == {at: -1.0}
    assert paid("id>", text, reward="scalar") == {at: -1.0}


def test_a_text_that_is_cut_pays_its_last_token():
    _, _, release = play("id>", '{"id":' + "1" * 30, eos=False, fields=1)
    assert len(release.token_rewards) == release.num_tokens == 10
    assert {i: r for i, r in enumerate(release.token_rewards.tolist()) if r} == {9: -1.0}


def test_the_scalar_reward_is_1_where_all_is_right():
    assert paid("id>", '{"id":7}', reward="scalar") == {None: 1.0}
    assert paid("id>", '{"id":7,"on":true}', reward="scalar") == {}


@given(seed=st.integers(0, 2**32 - 1))
def test_a_right_object_of_any_order_earns_1(seed):
    rng = np.random.default_rng(seed)
    prompt = JsonRecord(5).sample(rng).text
    names = list(rng.permutation(prompt[:-1].split(",")))
    record = {name: {int: 4, str: "ab", bool: True}[FIELDS[name]] for name in names}
    _, _, release = play(prompt, json.dumps(record, separators=(",", ":")), fields=5)
    assert release.token_rewards.sum() == pytest.approx(1.0)
    assert release.is_success


def test_every_second_demonstration_answers_its_prompt():
    task = JsonRecord()
    shown = task.demonstrations(np.random.default_rng(0), 300)
    right = []
    for prompt, text in shown:
        record = json.loads(text)
        assert all(type(value) is FIELDS[name] for name, value in record.items())
        right.append(list(record) == prompt.text[:-1].split(","))
    assert all(right[::2]) and sum(right[1::2]) < 30


def test_the_id_and_wrong_arguments():
    assert gym.make("textgym/JsonRecord-v0", fields=2).unwrapped.rules.max_prompt_tokens == 4
    with pytest.raises(ValueError, match="fields is 6"):
        JsonRecord(6)
    with pytest.raises(ValueError, match="'dense' and 'scalar'"):
        JsonRecord(reward="sum")
