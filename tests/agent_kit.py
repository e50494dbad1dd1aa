"""Small models for tests, all written here: nothing is downloaded."""

import torch
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
