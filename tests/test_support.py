"""What a model must have to be used; the refusals themselves are tested through ``ActorCritic`` in test_model.py."""

import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic
from textgym_agents.support import LogitRule, check_fit, head_of


def test_the_head_is_the_layer_that_gives_logits(letters):
    lm = build_lm("llama", len(letters))
    hidden = torch.randn(2, 32)
    assert torch.equal(head_of(lm)(hidden), lm.lm_head(hidden))


def test_attention_that_takes_no_mask_per_row_is_refused(letters):
    lm = build_lm("llama", len(letters))
    lm.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="runs attention as 'flash_attention_2'; the slot cache needs 'sdpa' or 'eager'"):
        check_fit(lm, len(letters), CONTEXT)


def test_a_cap_is_laid_on_what_the_factor_gave():
    # 2 tanh(.5 * 4 / 2) = 2 tanh(1) = 1.5231884
    assert LogitRule(0.5, 2.0)(torch.tensor([4.0, 0.0])).tolist() == pytest.approx([1.5231884, 0.0])
    assert LogitRule()(torch.tensor([4.0])).tolist() == [4.0]


def test_a_model_whose_rows_cannot_differ_in_length_is_refused(letters):
    """GPT-Neo has a causal table of its own, by the batch's last column; rows in step with each other hide it."""
    lm = build_lm("gpt_neo", len(letters), num_layers=2, num_heads=4, attention_types=[[["global"], 2]])
    with pytest.raises(ValueError, match="rows of its cache cannot have lengths of their own"):
        ActorCritic(lm, letters, CONTEXT)


def test_positions_that_hang_on_the_longest_text_of_a_batch_are_refused(letters):
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    fields = {"num_key_value_heads": 2, "original_max_position_embeddings": 10, "rope_parameters": rope, "pad_token_id": None}
    with pytest.raises(ValueError, match=r"at a context_length of 24: its longrope positions change .* beyond 10 tokens"):
        ActorCritic(build_lm("phi3", len(letters), **fields), letters, CONTEXT)
    ActorCritic(build_lm("phi3", len(letters), **fields), letters, 10)
