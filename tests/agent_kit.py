"""Small models for tests, all written here: nothing is downloaded."""

import torch
from textgym_agents.rollout import Rollout
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from textgym.ledger import Ledger

CONTEXT = 24
SHAPES = ("gpt2", "llama", "qwen2")


def build_lm(shape: str, vocab_size: int, context: int = CONTEXT, seed: int = 0):
    common = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape == "gpt2":
            config = GPT2Config(vocab_size=vocab_size, n_positions=context, n_embd=32, n_layer=2, n_head=4, **special)
            lm = GPT2LMHeadModel(config)
        elif shape == "llama":
            config = LlamaConfig(
                vocab_size=vocab_size, max_position_embeddings=context, num_key_value_heads=2, **common, **special
            )
            lm = LlamaForCausalLM(config)
        elif shape == "mistral":
            config = MistralConfig(
                vocab_size=vocab_size, max_position_embeddings=context, num_key_value_heads=2, sliding_window=5,
                **common, **special,
            )  # fmt: skip
            lm = MistralForCausalLM(config)
        elif shape == "gemma3":
            config = Gemma3TextConfig(
                vocab_size=vocab_size, max_position_embeddings=context, num_key_value_heads=2, sliding_window=5, head_dim=8,
                layer_types=["sliding_attention", "full_attention"], **common, **special,
            )  # fmt: skip
            lm = Gemma3ForCausalLM(config)
        else:
            config = Qwen2Config(
                vocab_size=vocab_size, max_position_embeddings=context, num_key_value_heads=2, tie_word_embeddings=True,
                **common, **special,
            )  # fmt: skip
            lm = Qwen2ForCausalLM(config)
        with torch.no_grad():  # larger weights than the initial ones, so that logits differ by more than rounding
            for parameter in lm.parameters():
                parameter.mul_(3.0)
    return lm.eval()


def build_rollout(**changes):
    """Two episodes of three and one tokens; the second token of the first is the environment's."""
    mask = torch.tensor([[True, False, True], [True, False, False]])
    fields = {
        "ids": torch.zeros(2, 4, dtype=torch.int64),
        "prompt_lengths": torch.tensor([1, 1]),
        "num_tokens": torch.tensor([3, 1]),
        "agent_mask": mask,
        "token_rewards": torch.tensor([[1.0, 0.0, 2.0], [-1.0, 0.0, 0.0]]),
        "streams": torch.where(mask, 0, -1),
        "logprobs": torch.tensor([[-1.0, 0.0, -2.0], [-3.0, 0.0, 0.0]]),
        "values": torch.zeros(2, 3),
        "ref_logprobs": None,
        "policy_version": torch.tensor([[3, 0, 5], [4, 0, 0]]),
        "final_values": torch.zeros(2),
        "terminated": torch.tensor([True, False]),
        "truncated": torch.tensor([False, True]),
        "episode_id": torch.arange(2),
        "group_id": torch.arange(2),
        "is_success": torch.tensor([True, False]),
        "ledger": Ledger(1.0),
    }
    return Rollout(**{**fields, **changes})
