"""Prompts from lists, datasets and files: order and columns exact, one begin-of-text where it is asked for."""

import json
import sys

import datasets
import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import textgym
from textgym import Prompt, PromptTask, TextTokenizer
from textgym.prompts import as_prompt, encode_prompt, read_prompts

ROWS = [{"prompt": letter * (1 + number % 3), "answer": number, "tags": [letter]} for number, letter in enumerate("abcdefgh")]


def nothing(episodes):
    return [0.0] * len(episodes)


def sources(folder):
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "p.parquet")
    dataset = datasets.Dataset.from_list(ROWS)
    return [ROWS, dataset, dataset.with_format("numpy"), str(folder / "p.jsonl"), folder / "p.jsonl", folder / "p.parquet"]


def test_order_and_metadata_are_exact_from_every_source_F35(letters, tmp_path):
    for source in sources(tmp_path):
        task = PromptTask(source, letters, nothing)
        assert [prompt.text for prompt in task.prompts] == [row["prompt"] for row in ROWS]
        assert [prompt.metadata for prompt in task.prompts] == [{k: r[k] for k in ("answer", "tags")} for r in ROWS]
        assert [type(prompt.metadata["answer"]) for prompt in task.prompts] == [int] * len(ROWS)
        assert task.max_prompt_tokens == 3


def test_metadata_reaches_the_reward_function_with_its_prompt(letters, tmp_path):
    seen = []

    def judge(episodes):
        seen.extend((e.prompt.text, e.prompt.metadata["answer"]) for e in episodes)
        return [float(e.prompt.metadata["answer"]) for e in episodes]

    for source in sources(tmp_path):
        options = {"prompts": source, "tokenizer": letters, "reward_fn": judge, "max_new_tokens": 1}
        env = gym.make("TextGen-v0", **options)
        env.reset(seed=0)
        env.step(3)
        envs = gym.make_vec("TextGen-v0", num_envs=16, **options)
        envs.reset(seed=0)
        envs.step(np.full(16, 3))
    known = {(row["prompt"], row["answer"]) for row in ROWS}
    assert {*seen} <= known and len({*seen}) > 4


def test_a_row_can_be_a_text_ids_messages_or_a_dict_of_them(chat_tokenizer):
    tokenizer = TextTokenizer(chat_tokenizer)
    messages = [{"role": "user", "content": "12"}]
    text, ids = tokenizer.chat(messages)
    plain = tokenizer.encode("12")
    for row, words, tokens, metadata in (
        ("12", "12", plain, {}),
        (plain.tolist(), "12", plain, {}),
        (plain, "12", plain, {}),
        (messages, text, ids, {"prompt": messages}),
        ({"prompt": "12", "a": 1}, "12", plain, {"a": 1}),
        ({"prompt": plain.tolist(), "a": None}, "12", plain, {"a": None}),
        ({"prompt": messages, "a": 1}, text, ids, {"a": 1, "prompt": messages}),
        (Prompt("12", [4, 5], {"b": 2}), "12", [4, 5], {"b": 2}),
    ):
        prompt = encode_prompt(row, tokenizer)
        assert (prompt.text, list(prompt.ids), prompt.metadata) == (words, list(tokens), metadata)
        assert prompt.ids.dtype == np.int64


def test_begin_of_text_stands_before_a_text_once_and_never_within_F22(chat_tokenizer):
    tokenizer = TextTokenizer(chat_tokenizer)
    bos, plain = tokenizer.bos_token_id, tokenizer.encode("12").tolist()
    messages = [{"role": "user", "content": "12"}]
    rows = ["12", "<s>12", plain, messages, {"prompt": "12"}, ""]
    without = PromptTask(rows, chat_tokenizer, nothing)
    assert without.prompts[0].ids.tolist() == plain
    task = PromptTask(rows, TextTokenizer(chat_tokenizer, add_bos=True), nothing, demonstrations=[("12", "99")])
    ids = [prompt.ids.tolist() for prompt in task.prompts]
    assert ids == [[bos, *plain], [bos, *plain], plain, tokenizer.chat(messages)[1].tolist(), [bos, *plain], [bos]]
    assert task.prompts[0].text == "12"
    assert ids[3].count(bos) == 1
    ((shown, _),) = task.demonstrations(np.random.default_rng(0), 1)
    assert shown.ids.tolist() == [bos, *plain]
    env = textgym.TextGenEnv(task)
    obs, _ = env.reset(options={"prompt": "12"})
    obs, *_ = env.step(plain[0])
    assert obs[obs >= 0].tolist() == [bos, *plain, plain[0]]


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([], "at least one"),
        ("a prompt", "at least one"),
        (3, "at least one"),
        ((text for text in "ab"), "of a stream or a set, a list"),
        ({"a", "b"}, "of a stream or a set, a list"),
        (pa.table({"prompt": ["a"], "answer": [1]}).to_pandas(), "of a table, its list of rows"),
        ([np.array(1)], "a ndarray"),
        ([[[1], [1, 2]]], "a list"),
        ({"train": ["a"], "test": ["b"]}, "dict of .'train', 'test'.; choose one split"),
        ([None], "a NoneType"),
        ([[]], "a list"),
        ([[0.5]], "a list"),
        ([[True]], "a list"),
        ([[99]], "allowed are one or more of 0..12"),
        ([[-1]], "allowed are one or more of 0..12"),
        ([[[1]]], "allowed are one or more of 0..12"),
        ([{"question": "a"}], "keys .'question'.; it needs 'prompt'"),
        ([{"prompt": {"prompt": "a"}}], "it needs 'prompt'"),
        ([{"role": "user", "content": "a"}], "one message"),
    ],
)
def test_what_is_no_prompt_is_refused(letters, prompts, said):
    with pytest.raises(ValueError, match=said):
        PromptTask(prompts, letters, nothing)


def test_a_dataset_of_splits_is_refused():
    with pytest.raises(ValueError, match=r"DatasetDict of .'train'.; choose one split"):
        read_prompts(datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)))


def test_columns_that_a_chat_template_would_have_to_see_are_refused(chat_tokenizer):
    row = {"prompt": [{"role": "user", "content": "12"}], "tools": [{"name": "f"}]}
    with pytest.raises(ValueError, match="'tools', which its chat template"):
        as_prompt(row, TextTokenizer(chat_tokenizer))
    assert as_prompt(row | {"tools": None}, TextTokenizer(chat_tokenizer)).metadata["tools"] is None
    assert as_prompt({"prompt": "12", "tools": 1}, TextTokenizer(chat_tokenizer)).metadata == {"tools": 1}


def test_a_broken_or_empty_file_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('"a"\n{"prompt": ')
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        read_prompts(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(tmp_path / "p.jsonl")


def test_a_file_without_a_column_of_prompts_is_named_with_its_line_and_columns(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "answer": 1}\n"b"\n{"question": "c", "answer": 2}\n')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 3 has no column 'prompt'; it has 'question', 'answer': rename"):
        read_prompts(tmp_path / "p.jsonl")
    pq.write_table(pa.Table.from_pylist([{"question": "c", "answer": 2}]), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=r"p\.parquet has no column 'prompt'; it has 'question', 'answer': rename"):
        read_prompts(tmp_path / "p.parquet")


def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"textgym\[data\]"):
        read_prompts(tmp_path / "p.parquet")


def test_empty_prompt_starts_from_begin_of_text(letters):
    assert np.asarray(encode_prompt(Prompt(""), letters).ids).tolist() == [letters.bos_token_id]
    assert np.asarray(encode_prompt(Prompt("ab"), letters).ids).tolist() == [2, 3]


@pytest.mark.parametrize("ids", [[], [99], [-1], [[1]], [2.9]])
def test_prompt_ids_that_are_no_tokens_are_refused(letters, ids):
    with pytest.raises(ValueError, match="allowed are one or more of"):
        encode_prompt(Prompt("x", ids), letters)
