import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import release, releases
from textgym.info import batch_infos, release_info, release_infos
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


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc"), st.booleans()), max_size=4), st.permutations(range(5)))
def test_releases_of_a_step_lie_as_gymnasium_lays_out_the_info_of_each(drawn, places):
    released = []
    for (size, name, flag), slot in zip(drawn, sorted(places[: len(drawn)]), strict=True):
        arrays = {
            "token_rewards": np.arange(size, dtype=np.float32) + slot,
            "streams": np.arange(size) % 2,
            "agent_mask": np.arange(size) % 3 > 0,
        }
        numbers = {"slot": slot, "num_tokens": size, "episode_id": slot + 5, "truncated": flag, "is_success": not flag}
        named = {"criteria": {name: size / 2}, "ledger": Ledger(slot / 3, {"nothing": 0.0} if flag else {})}
        released.append(make_release(**arrays, **numbers, **named))
    infos = release_infos(released, 5, 4)
    expected = batch_infos([(each.slot, release_info(each, 4)) for each in released], 5)
    if not released:
        assert not infos["_token_rewards"].any()
        return
    assert infos.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(infos[key], array)
        assert (infos[key].dtype, infos[key].shape) == (array.dtype, array.shape)
    assert len({id(array) for array in infos.values()}) == len(infos)  # each may be written to
    for read, each in zip(releases(infos), released, strict=True):
        assert (read.criteria, read.ledger, read.slot) == (each.criteria, each.ledger, each.slot)


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
