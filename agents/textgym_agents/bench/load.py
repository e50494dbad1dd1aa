"""The load of the speed benchmark as data: prompts, target lengths, and the models that write them.

Left out on purpose: contestants. Everyone gets the same ``Load``: random prompts, and one seeded table of the lengths at
which texts end, so that all do the same useful work and differ only in what they do besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from textgym import Episode, Prompt, Task, TextTokenizer, symbol_tokenizer
from textgym_agents.model import ActorCritic, tiny_gpt2

Shape = Literal["gpt2", "llama"]
Lengths = Literal["lognormal", "uniform"]

_FIRST_SYMBOL = 0x20000  # a plane with room for 65,534 letters


@dataclass(frozen=True)
class LoadConfig:
    """Sizes of the load and of the model."""

    episodes: int = 128
    """Texts per repeat."""
    lengths: Lengths = "lognormal"
    """Target lengths: lognormal (sigma 1), clipped to 1 and ``max_length``; or uniform from 1 to half of ``max_length``."""
    mean_length: float = 32.0
    """Mean of the lognormal lengths before clipping, in tokens."""
    max_length: int = 128
    """Most response tokens."""
    vocab_size: int = 4096
    """V."""
    shape: Shape = "gpt2"
    """Kind of model."""
    layers: int = 4
    """Its layers."""
    width: int = 256
    """Its width."""
    heads: int = 8
    """Its attention heads."""
    seed: int = 0
    """Of model, prompts, lengths and sampling."""

    def __post_init__(self) -> None:
        if not 4 <= self.vocab_size <= 65536:
            raise ValueError(f"vocab_size is {self.vocab_size}; it must be from 4 to 65536")
        for name in ("episodes", "max_length", "layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def describe_lengths(self) -> str:
        """Name the distribution of the target lengths."""
        if self.lengths == "uniform":
            return f"uniform 1 to {max(1, self.max_length // 2)}"
        return f"lognormal (sigma 1, mean {self.mean_length:g}, clipped to 1 and {self.max_length})"

    def describe_model(self) -> str:
        """Name the model's shape."""
        return f"{self.shape} {self.layers} x {self.width}, {self.heads} heads, V {self.vocab_size:,}, float32"


class Load(Task):
    """Prompts of 4 to 16 random tokens, handed out in order and over again; a text pays what its prompt's coin says.

    Attributes:
        prompts: int64 arrays, one per episode.
        targets: int64 (E,), tokens of each response, end-of-text included.
        coins: float64 (E,), 1 or -1, what each pays.
        handed_out: episodes begun so far; set it to 0 to begin at the first prompt.
    """

    def __init__(self, config: LoadConfig) -> None:
        rng = np.random.default_rng(config.seed)
        self.tokenizer = symbol_tokenizer([chr(_FIRST_SYMBOL + i) for i in range(config.vocab_size - 2)])
        self.max_prompt_tokens = 16
        self.max_new_tokens = config.max_length
        lengths = rng.integers(4, 17, size=config.episodes)
        self.prompts = [rng.integers(2, config.vocab_size, size=n) for n in lengths]
        if config.lengths == "uniform":
            drawn = rng.integers(1, max(1, config.max_length // 2) + 1, size=config.episodes)
        else:
            drawn = np.round(rng.lognormal(np.log(config.mean_length) - 0.5, 1.0, size=config.episodes))
        self.targets = np.clip(drawn, 1, config.max_length).astype(np.int64)
        self.coins = rng.choice([-1.0, 1.0], size=config.episodes)
        self.handed_out = 0
        self._number = {tuple(ids.tolist()): number for number, ids in enumerate(self.prompts)}
        if len(self._number) < config.episodes:
            raise ValueError(
                f"two of the {config.episodes} random prompts are the same; use another seed or a larger vocab_size"
            )

    @property
    def useful(self) -> int:
        """Tokens that one pass over the load writes."""
        return int(self.targets.sum())

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and response."""
        return self.max_prompt_tokens + self.max_new_tokens

    def target(self, prompt: Sequence[int]) -> int:
        """Give the length of the response to ``prompt``, in tokens."""
        return int(self.targets[self._number[tuple(prompt)]])

    def has(self, text: Sequence[int]) -> bool:
        """Say whether a text is one of the prompts and nothing more."""
        return tuple(text) in self._number

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Hand out the next prompt."""
        number = self.handed_out % len(self.prompts)
        self.handed_out += 1
        return Prompt("", self.prompts[number], {"number": number})

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[float]:
        """Pay 1 or -1 by the prompt's coin: rewards that cost no time, and gradients that are not 0."""
        return [float(self.coins[episode.prompt.metadata["number"]]) for episode in episodes]


def make_lm(config: LoadConfig, context_length: int) -> PreTrainedModel:
    """Build the load's language model with random weights."""
    if config.shape == "gpt2":
        return tiny_gpt2(
            config.vocab_size, context_length, seed=config.seed, layers=config.layers, width=config.width, heads=config.heads
        )
    # A gated layer has three matrices where GPT-2's has two: 8/3 of the width inside makes the two shapes the same size.
    inner = -(-config.width * 8 // 3 // 8) * 8
    llama = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=inner,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator; leave it as it was
        lm = LlamaForCausalLM(llama)
    for weight in lm.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0.0, 0.02, generator=generator)
    return lm


def make_model(config: LoadConfig, load: Load, *, separate_value: bool = False) -> ActorCritic:
    """Build the load's language model with a value head, on its own states or on those of a second model of the same size."""
    value_lm = make_lm(config, load.context_length) if separate_value else None
    tokenizer = TextTokenizer(load.tokenizer)
    return ActorCritic(make_lm(config, load.context_length), tokenizer, load.context_length, value_lm)
