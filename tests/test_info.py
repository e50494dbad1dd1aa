import numpy as np
import pytest

import textgym
from textgym import release, releases
from textgym.info import release_info
from textgym.ledger import Ledger


def make_release(**changes):
    values = {
        "episode_id": 3,
        "slot": 0,
        "token_rewards": np.array([0, 1.5], dtype=np.float32),
        "streams": np.array([0, 1]),
        "agent_mask": np.array([True, True]),
        "num_tokens": 2,
        "terminated": True,
        "truncated": False,
        "is_success": True,
        "group_id": 3,
        "criteria": {"a": 1.5},
        "ledger": Ledger(1.5),
    }
    return textgym.Release(**{**values, **changes})


def test_arrays_have_one_shape_and_dtype_and_no_forbidden_key():
    info = release_info(make_release(), 4)
    assert info["token_rewards"].tolist() == [0, 1.5, 0, 0]
    assert info["token_streams"].tolist() == [0, 1, -1, -1]
    assert info["agent_mask"].tolist() == [True, True, False, False]
    assert [info[key].dtype for key in ("token_rewards", "token_streams", "agent_mask")] == [np.float32, np.int64, np.bool_]
    assert not {"episode", "terminal_observation"} & set(info)


def test_numbers_are_plain_python():
    info = release_info(make_release(), 4)
    kinds = {key: type(value) for key, value in info.items() if not isinstance(value, np.ndarray)}
    assert kinds == {
        "num_tokens": int,
        "episode_id": int,
        "group_id": int,
        "is_success": bool,
        "terminated": bool,
        "truncated": bool,
        "criteria/a": float,
        "ledger_asked": float,
    }


def test_reading_gives_back_what_was_written():
    written = make_release()
    read = release(release_info(written, 4))
    assert read is not None
    for name in vars(written):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


def test_no_release_before_the_end():
    assert release({}) is None
    assert releases({}) == []
    assert release({}, slot=0) is None


def test_criteria_of_other_slots_are_not_read():
    info = {
        "token_rewards": np.zeros((2, 1), np.float32),
        "_token_rewards": np.array([True, True]),
        "token_streams": np.zeros((2, 1), np.int64),
        "agent_mask": np.ones((2, 1), bool),
        **{key: np.ones(2, int) for key in ("num_tokens", "episode_id", "group_id")},
        **{key: np.ones(2, bool) for key in ("is_success", "terminated", "truncated")},
        "ledger_asked": np.zeros(2),
        "criteria/a": np.array([1.0, 0.0]),
        "_criteria/a": np.array([True, False]),
    }
    assert [dict(item.criteria) for item in releases(info)] == [{"a": 1.0}, {}]
    one = release(info, slot=1)
    assert one is not None
    assert one.slot == 1
    with pytest.raises(ValueError, match="read-only"):
        one.token_rewards[0] = 1


def test_reading_with_the_wrong_reader_is_told():
    scalar = release_info(make_release(), 4)
    with pytest.raises(ValueError, match=r"read it with release\(info\)"):
        releases(scalar)
    for vector in ({"final_info": {}, "_final_info": np.array([True])}, {"_token_rewards": np.array([True])}):
        with pytest.raises(ValueError, match=r"releases\(info\) or release\(info, slot=i\)"):
            release(vector)
