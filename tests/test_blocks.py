"""Blocks of rows: every row in one block, cut where it pays, and the same numbers as attention over all columns."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, SHAPES, build_lm
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents import blocks as blocks_module
from textgym_agents.blocks import attention_in_blocks, split_rows
from textgym_agents.model import ActorCritic
from torch.overrides import TorchFunctionMode

BLOCKS = [(0, 1, 4), (1, 2, 9)]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=64))
def test_blocks_hold_every_row_once_and_see_all_that_it_has(lengths):
    lengths = np.array(lengths)
    blocks = split_rows(lengths)
    assert [row for a, b, _ in blocks for row in range(a, b)] == list(range(len(lengths)))
    assert all(width == lengths[a:b].max() for a, b, width in blocks)


def test_rows_are_cut_where_it_saves_much_and_only_there():
    assert split_rows(np.array([10] * 20 + [140] * 4)) == [(0, 20, 10), (20, 24, 140)]
    assert split_rows(np.array([10] * 20 + [20] * 4)) == [(0, 24, 20)]


@pytest.mark.parametrize("shape", [*SHAPES, "mistral", "gemma3_text"])
def test_attention_in_blocks_equals_attention_over_all_columns(letters, shape, monkeypatch):
    lm = build_lm(shape, len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    lengths = np.array([2, 3, 9, 17])
    ids = torch.randint(len(letters), (4, 17), generator=torch.Generator().manual_seed(0))
    seen = []
    inner = blocks_module.sdpa_attention_forward

    def spy(module, query, key, *args, **kwargs):
        seen.append((len(query), key.shape[2]))
        return inner(module, query, key, *args, **kwargs)

    monkeypatch.setattr(blocks_module, "sdpa_attention_forward", spy)
    results = []
    for blocks in ([(0, 4, 17)], [(0, 2, 3), (2, 3, 9), (3, 4, 17)]):
        cache = model.slot_cache(4)
        at = torch.arange(17).expand(4, -1)
        last = torch.from_numpy(lengths - 1)[:, None]
        with torch.no_grad():
            model.policy_hidden(ids, at, cache.aim(None, at, 17, lm.dtype), cache)
            mask = cache.aim(None, last, 17, lm.dtype)
            with attention_in_blocks(lm, blocks):
                results.append(model.policy_hidden(ids.gather(1, last), last, mask, cache))
    assert seen[:3] == [(2, 3), (1, 9), (1, 17)]
    assert torch.allclose(*results, atol=1e-5)
    assert lm.config._attn_implementation == "sdpa"


def test_other_attention_is_left_alone(letters):
    lm = build_lm("llama", len(letters))
    lm.config._attn_implementation = "eager"
    with attention_in_blocks(lm, [(0, 1, 4), (1, 2, 9)]):
        assert lm.config._attn_implementation == "eager"


def test_the_models_own_attention_comes_back_after_an_error(letters):
    lm = build_lm("llama", len(letters))
    with pytest.raises(RuntimeError), attention_in_blocks(lm, [(0, 1, 4), (1, 2, 9)]):
        raise RuntimeError
    assert lm.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("shape", ["llama", "mistral"])
def test_another_thread_that_runs_the_model_meanwhile_has_plain_attention(letters, shape):
    lm = build_lm(shape, len(letters))
    ids = torch.randint(len(letters), (2, 9), generator=torch.Generator().manual_seed(0))
    padded = torch.ones_like(ids)
    padded[0, :4] = 0

    def run(mask):
        with torch.no_grad():
            return lm(input_ids=ids, attention_mask=mask).logits[:, -1]

    def hold():
        with attention_in_blocks(lm, BLOCKS):
            begun.set()
            over.wait()

    begun, over = Event(), Event()
    expected = [run(None), run(padded)]
    with ThreadPoolExecutor(2) as others:
        with attention_in_blocks(lm, BLOCKS):
            got = [others.submit(run, mask).result() for mask in (None, padded)]
            others.submit(hold)
            begun.wait()
        assert lm.config._attn_implementation != "sdpa"  # the other thread's pass is still under way
        over.set()
    assert lm.config._attn_implementation == "sdpa"
    for one, plain in zip(got, expected, strict=True):
        assert torch.allclose(one, plain, atol=1e-5)


@pytest.mark.parametrize(("amd", "least", "sums"), [(True, 1, 2), (True, 4 * 5 * 3 * 2 + 1, 0), (False, 1, 0)])
def test_large_blocks_are_read_in_order_where_that_pays(amd, least, sums, monkeypatch):
    monkeypatch.setattr(blocks_module, "made_by_amd", lambda: amd)
    monkeypatch.setattr(blocks_module, "_LEAST_READ", least)
    called = []

    class Spy(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            called.append(func)
            return func(*args, **(kwargs or {}))

    keys = torch.ones(4, 3, 5, 2)
    with Spy():
        blocks_module._read(keys, keys)
    assert called.count(torch.Tensor.sum) == sums
    assert torch.equal(keys, torch.ones(4, 3, 5, 2))
