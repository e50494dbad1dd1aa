"""Masks by hand: causal, windows, packed rows, and what a model's config says of its layers."""

import pytest
import torch
from textgym_agents.masks import FULL, SLIDING, attention_masks, layer_windows
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config


def seen(mask):
    return (mask[:, 0] == 0).int().tolist()


def test_a_token_sees_itself_and_what_stands_before_it():
    mask = attention_masks(torch.tensor([[1, 2]]), torch.arange(4), {FULL: None}, torch.float32)
    assert isinstance(mask, torch.Tensor) and mask.shape == (1, 1, 2, 4)
    assert seen(mask) == [[[1, 1, 0, 0], [1, 1, 1, 0]]]
    assert mask.min() == torch.finfo(torch.float32).min


def test_a_window_counts_the_token_itself():
    masks = attention_masks(torch.tensor([[3], [1]]), torch.arange(4), {SLIDING: 2, FULL: None}, torch.bfloat16)
    assert seen(masks[SLIDING]) == [[[0, 0, 1, 1]], [[1, 1, 0, 0]]]
    assert seen(masks[FULL]) == [[[1, 1, 1, 1]], [[1, 1, 0, 0]]]
    assert masks[FULL].dtype is torch.bfloat16


def test_texts_of_a_packed_row_do_not_see_each_other():
    text = torch.tensor([[0, 0, 1, 1]])
    places = torch.arange(4)[None]
    same = text[:, :, None] == text[:, None, :]
    mask = attention_masks(places, places, {FULL: None}, torch.float32, same)
    assert seen(mask) == [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]


def test_layer_kinds_are_read_from_configs():
    assert layer_windows(GPT2Config(), 32) == {FULL: None}
    assert layer_windows(LlamaConfig(), 32) == {FULL: None}
    assert layer_windows(MistralConfig(sliding_window=8), 32) == {SLIDING: 8}
    assert layer_windows(MistralConfig(sliding_window=32), 32) == {SLIDING: None}  # it holds the whole text
    assert layer_windows(Qwen2Config(sliding_window=8), 32) == {FULL: None}  # use_sliding_window is False there
    gemma = Gemma3TextConfig(num_hidden_layers=6, sliding_window=4)
    assert layer_windows(gemma, 32) == {SLIDING: 4, FULL: None}


def test_other_layer_kinds_are_refused_by_name():
    config = LlamaConfig(num_hidden_layers=2)
    config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(ValueError, match="'chunked_attention'; the slot cache holds full_attention and sliding_attention"):
        layer_windows(config, 32)
