import numpy as np
import pytest
import torch

from textgym.rules import EOS, LENGTH, RUNNING, TURN_LENGTH, Rules
from textgym.store import NumpyStore
from textgym.torch_store import HostStore, TorchStore

STORES = {"numpy": NumpyStore, "host": HostStore, "torch": lambda rules, n: TorchStore(rules, n, "cpu")}


def build(letters, kind, stop=()):
    rules = Rules(prompts=["a", "bcd"], tokenizer=letters, reward_fn=lambda e: [0.0], max_new_tokens=2, stop=stop)
    store = STORES[kind](rules, 3)
    store.start(np.arange(3), [np.array([2]), np.array([3, 4, 5]), np.array([2])])
    return store


@pytest.mark.parametrize("kind", STORES)
def test_tokens_are_appended_at_each_texts_own_end(letters, kind):
    store = build(letters, kind)
    everyone = np.arange(3)
    codes, look = store.append(np.array([6, 7, 1]), everyone)
    assert codes.tolist() == [RUNNING, RUNNING, EOS]
    assert look is None
    acting = np.array([0, 1])
    codes, _ = store.append(np.array([8, 1, -5]), acting)
    assert codes.tolist() == [LENGTH, EOS, RUNNING]  # end-of-text at the limit is an end by end-of-text
    assert [store.response(i).tolist() for i in range(3)] == [[6, 8], [7, 1], [1]]
    assert np.asarray(store.observation()).tolist() == [[2, 6, 8, -1, -1], [3, 4, 5, 7, 1], [2, 1, -1, -1, -1]]


@pytest.mark.parametrize("kind", STORES)
def test_candidates_of_stop_strings_are_marked_where_they_act(letters, kind):
    store = build(letters, kind, stop=["b."])
    dot = letters.encode(".")[0]
    _, look = store.append(np.array([dot, 3, dot]), np.array([0, 1]))
    assert look.tolist() == [True, False, False]


@pytest.mark.parametrize("kind", STORES)
def test_observations_are_copies(letters, kind):
    store = build(letters, kind)
    seen = store.observation()
    store.append(np.array([6, 6, 6]), np.arange(3))
    assert np.asarray(seen).tolist()[0][1] == -1
    response = store.response(0)
    response[0] = 9
    assert store.response(0).tolist() == [6]


@pytest.mark.parametrize("kind", STORES)
def test_a_new_prompt_leaves_nothing_of_the_old_text(letters, kind):
    store = build(letters, kind)
    store.append(np.array([6, 6, 6]), np.arange(3))
    store.start(np.array([1]), [np.array([9])])
    assert np.asarray(store.observation())[1].tolist() == [9, -1, -1, -1, -1]
    assert store.response(1).tolist() == []


@pytest.mark.parametrize("kind", ["host", "torch"])
def test_the_torch_stores_take_and_give_tensors(letters, kind):
    store = build(letters, kind)
    store.append(torch.tensor([6, 6, 6], dtype=torch.int32), np.arange(3))
    assert isinstance(store.observation(), torch.Tensor)
    out = store.output({"a": np.ones(2), "b": {"c": np.array(["x"], dtype=object)}})
    assert isinstance(out["a"], torch.Tensor)
    assert out["b"]["c"].tolist() == ["x"]


@pytest.mark.parametrize("kind", STORES)
def test_replies_are_inserted_and_move_the_limits(letters, kind):
    rules = Rules(
        prompts=["a"], tokenizer=letters, reward_fn=lambda e: [0.0], reply_fn=lambda e: "b",
        max_new_tokens=4, max_response_tokens=7, max_turn_tokens=2,
    )  # fmt: skip
    store = STORES[kind](rules, 2)
    store.start(np.arange(2), [np.array([2])] * 2)
    everyone = np.arange(2)
    assert store.append(np.array([3, 3]), everyone)[0].tolist() == [RUNNING, RUNNING]
    assert store.append(np.array([3, 3]), everyone)[0].tolist() == [TURN_LENGTH, TURN_LENGTH]
    store.insert(0, np.array([4, 4]))
    assert store.response(0).tolist() == [3, 3, 4, 4]
    assert store.append(np.array([5, 5]), everyone)[0].tolist() == [RUNNING, TURN_LENGTH]
    assert store.append(np.array([5, 5]), everyone)[0].tolist() == [LENGTH, LENGTH]  # four tokens are the agent's
