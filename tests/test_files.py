"""Episodes to files and back: what is read is what was written, bit for bit."""

import importlib
import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_trainers import build_pair, random_pairs

import textgym
from textgym import Ledger
from textgym.export import load_episodes, save_episodes
from textgym.export.files import FIELDS, from_record, to_record

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def assert_same(given, read):
    """Every field of both objects, with types and dtypes."""
    for before, after in zip(given, read, strict=True):
        assert type(before) is type(after)
        for name in (each.name for each in fields(before)):
            value, other = getattr(before, name), getattr(after, name)
            if isinstance(value, np.ndarray):
                assert (value.dtype, value.shape, value.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
                assert not other.flags.writeable
            elif name == "prompt":
                assert (value.text, value.metadata, value.group_id) == (other.text, other.metadata, other.group_id)
                assert list(value.metadata) == list(other.metadata)
                np.testing.assert_array_equal(value.ids, other.ids)
            else:
                assert type(value) is type(other) and value == other, name


@st.composite
def any_pairs(draw):
    """As random pairs, with any float32 as a reward, any JSON as metadata, any text, and accounts in the ledger."""
    pairs = []
    for episode, release in draw(random_pairs()):
        metadata = draw(st.dictionaries(st.text(max_size=3), JSON, max_size=3))
        text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
        prompt = textgym.Prompt(text, episode.prompt.ids, metadata, episode.prompt.group_id)
        rewards = np.array([draw(FLOATS) for _ in episode.ids], dtype=np.float32)
        accounts = draw(st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), max_size=2))
        ledger = Ledger(draw(st.floats(-1e9, 1e9)), accounts)
        changed = vars(release) | {"token_rewards": rewards, "ledger": ledger}
        pairs.append((type(episode)(**vars(episode) | {"prompt": prompt, "text": text}), type(release)(**changed)))
    return pairs


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@given(pairs=any_pairs())
def test_a_file_gives_back_what_was_saved(pairs, suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / f"episodes{suffix}"
    save_episodes(path, pairs)
    read = load_episodes(str(path))
    assert len(read) == len(pairs)
    for before, after in zip(pairs, read, strict=True):
        assert_same(before, after)


def test_a_played_episode_comes_back_from_a_file(tmp_path):
    envs = textgym.TextGenVectorEnv(2, "number_duel", keep_episodes=True)
    envs.reset(seed=0)
    for _ in range(40):
        envs.step(envs.action_space.sample())
    played = envs.take_episodes()
    assert played
    save_episodes(tmp_path / "duel.jsonl", played)
    for before, after in zip(played, load_episodes(tmp_path / "duel.jsonl"), strict=True):
        assert_same(before, after)


def test_an_episode_without_tokens_or_prompt_ids_comes_back(tmp_path):
    episode, release = build_pair([])
    bare = type(episode)(**vars(episode) | {"prompt": textgym.Prompt("x")})
    for suffix in (".jsonl", ".parquet"):
        save_episodes(tmp_path / f"e{suffix}", [(bare, release)])
        ((read, paid),) = load_episodes(tmp_path / f"e{suffix}")
        assert read.prompt.ids is None and read.offsets.shape == (0, 2) and paid.token_rewards.dtype == np.float32
    save_episodes(tmp_path / "none.parquet", [])
    assert load_episodes(tmp_path / "none.parquet") == []


@pytest.mark.parametrize(
    "metadata", [{"a": (1, 2)}, {1: "a"}, {"a": np.int64(1)}, {"a": float("nan")}, {"a": {2: 1}}, {"a": {1}}]
)
def test_metadata_that_json_would_change_is_refused(metadata):
    episode, release = build_pair([1.0], episode_id=3)
    odd = type(episode)(**vars(episode) | {"prompt": textgym.Prompt("x", episode.prompt.ids, metadata)})
    with pytest.raises(ValueError, match="metadata of episode 3"):
        to_record(odd, release)


def test_what_is_no_pair_or_not_finite_is_refused():
    one, two = build_pair([1.0], episode_id=1), build_pair([1.0, 2.0], episode_id=2)
    with pytest.raises(ValueError, match=r"episode 1 .* stands beside the release of episode 2"):
        to_record(one[0], two[1])
    with pytest.raises(ValueError, match=r"episode 0 .*stands beside"):
        to_record(build_pair([1.0])[0], build_pair([1.0], group_id=3)[1])
    with pytest.raises(ValueError, match=r"episode 0 has a reward.* not finite"):
        to_record(*build_pair([np.inf]))


def test_files_of_another_kind_or_version_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .jsonl or .parquet"):
        save_episodes(tmp_path / "e.csv", [])
    record = to_record(*build_pair([1.0]))
    assert tuple(record) == FIELDS
    with pytest.raises(ValueError, match=r"schema 2; this version of textgym reads schema 1"):
        from_record(record | {"schema": 2})
    with pytest.raises(ValueError, match="lacks or adds the fields reward"):
        from_record(record | {"reward": 2})
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps(record)[:30])
    with pytest.raises(ValueError, match=r"line 2 is no JSON .*was the file cut"):
        load_episodes(path)
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="line 1 is no episode"):
        load_episodes(path)


def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name="datasets")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"textgym\[data\]"):
        save_episodes(tmp_path / "e.parquet", [])
    save_episodes(tmp_path / "e.jsonl", [])
    assert load_episodes(tmp_path / "e.jsonl") == []
