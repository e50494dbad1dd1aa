"""The texts of many slots; the doors' tests play them through the environment."""

import numpy as np
import pytest

from textgym import PromptTask
from textgym.rules import EOS, RUNNING, STOP, TURN_STOP, Rules
from textgym.store import NumpyStore
from textgym.texts import Texts


def build(letters, num_envs=3, group_size=1, **options):
    rules = Rules(PromptTask(["ab"], letters, lambda e: [0.0] * len(e), **{"max_new_tokens": 4, **options}))
    store = NumpyStore(rules, num_envs)
    return Texts(rules, store, num_envs, group_size), store


def write(texts, store, tokens, slots):
    codes, look = store.append(np.array(tokens), np.array(slots))
    texts.follow(codes, look)
    return codes.tolist()


def test_episodes_are_numbered_by_slot_and_how_many_it_has_started(letters):
    texts, _ = build(letters)
    everyone = np.arange(3)
    texts.start(everyone, {})
    assert [texts.episode(slot, EOS).episode_id for slot in range(3)] == [0, 1, 2]
    texts.counts[1] += 1
    texts.idle[1] = True  # it ended
    texts.start(everyone, {})  # slots 0 and 2 are given up: their numbers are not used again
    assert [texts.episode(slot, EOS).episode_id for slot in range(3)] == [3, 4, 5]
    assert not texts.idle.any()


def test_groups_share_their_number(letters):
    texts, _ = build(letters, num_envs=4, group_size=2)
    texts.start(np.arange(4), {})
    assert [prompt.group_id for prompt in texts.prompts] == [0, 0, 1, 1]


def test_stop_strings_end_a_text_and_replies_continue_it(letters):
    c, dot = letters.encode("c.").tolist()
    texts, store = build(letters, stop=["c."])
    texts.start(np.arange(3), {})
    assert write(texts, store, [c, c, dot], range(3)) == [RUNNING] * 3
    assert write(texts, store, [dot, 1, c], range(3)) == [STOP, EOS, RUNNING]
    texts, store = build(letters, reply_fn=lambda e: "d" if len(e.ids) < 4 else None, turn_stop=["."], max_response_tokens=9)
    texts.start(np.arange(3), {})
    assert write(texts, store, [c, dot, c], range(3)) == [RUNNING] * 3
    assert write(texts, store, [dot, c, c], range(3)) == [RUNNING] * 3
    assert [texts.episode(slot, RUNNING).text for slot in range(3)] == ["c.d", ".dc", "cc"]
    assert write(texts, store, [dot, 1, 1], range(3)) == [TURN_STOP, EOS, RUNNING]
    assert texts.episode(0, TURN_STOP).turns.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("mask", [np.ones(2, bool), np.zeros(3, bool), np.ones(3), [1, 0, 1]])
def test_what_is_no_mask_of_slots_is_refused(letters, mask):
    texts, _ = build(letters)
    with pytest.raises(ValueError, match=r"options\['reset_mask'\] has shape .* give bool \(3,\) with at least one True"):
        texts.masked(mask)
    assert texts.masked(None).tolist() == [True] * 3
    assert texts.masked([True, False, True]).tolist() == [True, False, True]
