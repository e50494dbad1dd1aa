"""``textgym bench rollout``: the same texts collected through slots and generated in batches, timed in one run.

Left out on purpose: rewards and learning. Lengths are forced by one seeded table for every contestant, so that each does
the same useful work; what differs is what it does besides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from transformers import LogitsProcessor, PreTrainedModel

from textgym import Episode, Prompt, Task, TextGenVectorEnv, TextTokenizer, symbol_tokenizer
from textgym_agents.collector import collect
from textgym_agents.model import ActorCritic, tiny_gpt2
from textgym_agents.policy import CausalLMPolicy, Step


@dataclass(frozen=True)
class BenchConfig:
    """The load: heavy-tailed lengths, as reinforcement learning of language models meets them."""

    episodes: int = 128
    """Texts per repeat."""
    slots: int = 32
    """Texts side by side, for both contestants."""
    vocab_size: int = 4096
    """Tokens."""
    layers: int = 4
    """Layers of the GPT-2 shape."""
    width: int = 256
    """Its width."""
    heads: int = 8
    """Its attention heads."""
    mean_length: float = 32.0
    """Mean of the lognormal target lengths (sigma 1), before clipping."""
    max_length: int = 128
    """Longest response; lengths are clipped to 1 and this."""
    repeats: int = 5
    """Timed repeats, after one that is not timed; medians are reported."""
    threads: int = 2
    """torch threads; 0 leaves them as they are."""
    seed: int = 0
    """Of model, prompts, lengths and sampling."""

    def describe(self) -> str:
        """Say what the load is, in a line."""
        return (
            f"{self.episodes} episodes, {self.slots} slots, GPT-2 {self.layers} x {self.width}, V {self.vocab_size}, lognormal "
            f"lengths (mean {self.mean_length:g}, at most {self.max_length}), median of {self.repeats}"
        )


@dataclass(frozen=True)
class Row:
    """One contestant's figures."""

    name: str
    """Who."""
    tokens_per_second: float
    """Useful tokens (up to each target length, end-of-text included) per second, median over the repeats."""
    ratio: float
    """Against Hugging Face generate in the same run: median of the repeats' ratios."""


class _Load(Task):
    """Prompts of random tokens, handed out in order; every text pays nothing."""

    def __init__(self, config: BenchConfig) -> None:
        rng = np.random.default_rng(config.seed)
        self.tokenizer = symbol_tokenizer([chr(0x4E00 + i) for i in range(config.vocab_size - 2)])
        self.max_prompt_tokens = 16
        self.max_new_tokens = config.max_length
        lengths = rng.integers(4, 17, size=config.episodes)
        self.prompts = [rng.integers(2, config.vocab_size, size=n) for n in lengths]
        drawn = rng.lognormal(np.log(config.mean_length) - 0.5, 1.0, size=config.episodes)
        self.targets = np.clip(np.round(drawn), 1, config.max_length).astype(np.int64)
        self.handed_out = 0

    def sample(self, rng: np.random.Generator) -> Prompt:
        number = self.handed_out % len(self.prompts)
        self.handed_out += 1
        return Prompt("", self.prompts[number], {"number": number})

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[float]:
        return [0.0] * len(episodes)


class _ForcedLengths:
    """A policy whose texts end exactly where the table says."""

    def __init__(self, policy: CausalLMPolicy, load: _Load) -> None:
        self.policy = policy
        self.load = load
        self.end = np.full(policy.num_slots, -1, dtype=np.int64)  # length of each slot's text when its last token is due
        self._number = {tuple(ids.tolist()): number for number, ids in enumerate(load.prompts)}

    def reset_slots(self, slots: Any) -> None:
        self.policy.reset_slots(slots)
        self.end[slots] = -1

    def act(self, obs: Any, slots: Any) -> Step:
        slots = np.asarray(slots)
        lengths = (obs >= 0).sum(1).numpy()
        for i in np.flatnonzero(self.end[slots] < 0):
            number = self._number[tuple(obs[i, : lengths[i]].tolist())]
            self.end[slots[i]] = lengths[i] + self.load.targets[number] - 1
        step = self.policy.act(obs, slots)
        eos = self.load.tokenizer.eos_token_id
        tokens = torch.where(step.tokens == eos, eos + 1, step.tokens)
        tokens[torch.from_numpy(lengths == self.end[slots])] = eos
        return Step(tokens, step.logprobs, step.values)


class _ForcedEnd(LogitsProcessor):
    """The same for ``generate``."""

    def __init__(self, targets: torch.Tensor, prompt_width: int, eos: int) -> None:
        self.targets, self.prompt_width, self.eos = targets, prompt_width, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        due = input_ids.shape[1] - self.prompt_width + 1 >= self.targets
        scores[:, self.eos] = -float("inf")
        scores[due] = -float("inf")
        scores[due, self.eos] = 0.0
        return scores


def bench_rollout(config: BenchConfig) -> list[Row]:
    """Measure both contestants on the same load, alternating, and check that both did the same useful work."""
    if config.threads:
        torch.set_num_threads(config.threads)
    load = _Load(config)
    context_length = load.max_prompt_tokens + load.max_new_tokens
    lm = tiny_gpt2(
        config.vocab_size,
        context_length,
        seed=config.seed,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
    )
    ours = _slots(lm, load, config)
    theirs = _batches(lm, load, config)
    useful = int(load.targets.sum())
    seconds: list[tuple[float, float]] = []
    for repeat in range(config.repeats + 1):
        pair = _timed(ours, useful), _timed(theirs, useful)
        if repeat:
            seconds.append(pair)
    mine = statistics.median(useful / a for a, _ in seconds)
    other = statistics.median(useful / b for _, b in seconds)
    return [
        Row("Hugging Face generate", other, 1.0),
        Row("textgym collect", mine, statistics.median(b / a for a, b in seconds)),
    ]


def _timed(contestant: Callable[[], int], useful: int) -> float:
    start = time.perf_counter()
    tokens = contestant()
    seconds = time.perf_counter() - start
    if tokens != useful:
        raise RuntimeError(f"a contestant wrote {tokens} tokens where the load asks for {useful}")
    return seconds


def _slots(lm: PreTrainedModel, load: _Load, config: BenchConfig) -> Callable[[], int]:
    model = ActorCritic(lm, TextTokenizer(load.tokenizer), load.max_prompt_tokens + load.max_new_tokens)
    policy = _ForcedLengths(CausalLMPolicy(model, config.slots, seed=config.seed), load)
    envs = TextGenVectorEnv(config.slots, load, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=config.seed)

    def run() -> int:
        load.handed_out = 0
        return int(collect(envs, policy, config.episodes).num_tokens.sum())

    return run


def _batches(lm: PreTrainedModel, load: _Load, config: BenchConfig) -> Callable[[], int]:
    eos, pad = load.tokenizer.eos_token_id, load.tokenizer.bos_token_id

    def run() -> int:
        tokens = 0
        for start in range(0, config.episodes, config.slots):
            prompts = load.prompts[start : start + config.slots]
            targets = torch.from_numpy(load.targets[start : start + config.slots])
            width = max(len(ids) for ids in prompts)
            ids = torch.full((len(prompts), width), pad)
            for row, prompt in zip(ids, prompts, strict=True):
                row[width - len(prompt) :] = torch.from_numpy(prompt)
            out = lm.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=(ids != pad).long(),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=config.max_length,
                eos_token_id=eos,
                pad_token_id=pad,
                use_cache=True,
                logits_processor=[_ForcedEnd(targets, width, eos)],
            )
            tokens += int(((out[:, width:] == eos).int().argmax(1) + 1).sum())
        return tokens

    return run
