"""Small models for tests, all written here: nothing is downloaded."""

from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode
from textgym_agents import ActorCritic, CausalLMPolicy, decode, products
from textgym_agents.rollout import Rollout
from transformers import AutoConfig, AutoModelForCausalLM

from textgym import PromptTask, TextGenVectorEnv
from textgym.ledger import Ledger

CONTEXT = 24
LAYOUTS = {"onednn": products.ONEDNN, "turned": products.TURNED}
WINDOW = 5
SHAPES = ("gpt2", "llama", "qwen2")
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": GROUPED,
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 8},
    "mistral": GROUPED | {"sliding_window": WINDOW},
    "gemma2": GROUPED
    | SLIDING
    | {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 8},
    "gemma3_text": GROUPED | SLIDING | {"head_dim": 8},
    "cohere": GROUPED | {"logit_scale": 0.1},
    "granite": GROUPED | {"logits_scaling": 4.0},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "mixtral": GROUPED | {"sliding_window": None, "num_local_experts": 4},
}
"""A config's own fields for each model family, beside the sizes that all share."""


def build_lm(family: str, vocab_size: int, context: int = CONTEXT, seed: int = 0, **fields: Any):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if family == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4}
    own = FAMILIES.get(family, {}) | fields
    config = AutoConfig.for_model(family, vocab_size=vocab_size, max_position_embeddings=context, **{**sizes, **special, **own})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lm = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # larger weights than the initial ones, so that logits differ by more than rounding
            for parameter in lm.parameters():
                parameter.mul_(3.0)
    return lm.eval()


def copies_of_small_weights_too(layout):
    """Give a layout that copies weights of any size, for products of any number of rows."""
    return layout._replace(least=4, most=2**26, few=1)


def take_products_from_copies(monkeypatch, layout):
    """Let policies made from now on decode with copies of weights in this layout, even of small ones, on any processor."""
    if layout is products.ONEDNN and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(decode, "best_layout", lambda: layout and copies_of_small_weights_too(layout))


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
        "version": 5,
        "final_values": torch.zeros(2),
        "terminated": torch.tensor([True, False]),
        "truncated": torch.tensor([False, True]),
        "episode_id": torch.arange(2),
        "group_id": torch.arange(2),
        "is_success": torch.tensor([True, False]),
        "ledger": Ledger(1.0),
    }
    return Rollout(**{**fields, **changes})


def play_kit(letters, reward_fn=None, group_size=1, seed=0, num_slots=8, **kwargs):
    """A small policy, and an environment of prompts "a" and "bcd" under DISABLED, as agents get them."""
    reward_fn = reward_fn or (lambda episodes: [float((episode.ids % 2).sum()) for episode in episodes])
    task = PromptTask(["a", "bcd"], letters, reward_fn, **{"max_new_tokens": 6, **kwargs})
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), num_slots, seed=seed)
    envs = TextGenVectorEnv(
        num_slots, task, autoreset_mode=AutoresetMode.DISABLED, output="torch", group_size=group_size, keep_episodes=True
    )
    envs.reset(seed=seed)
    return policy, envs


def gradients(policy):
    """The gradients that a policy's language model was left with, in one row."""
    return torch.cat([p.grad.flatten() for p in policy.model.lm.parameters()])


def weights(policy):
    """All weights of a policy's model in one row."""
    return torch.cat([p.detach().flatten().clone() for p in policy.model.parameters()])
