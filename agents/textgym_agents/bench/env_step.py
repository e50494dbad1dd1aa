"""``textgym bench env``: what one environment step costs, and what rewards that take their time cost a policy.

Left out on purpose: a model. Actions are random tokens from a table, ends are forced by a seeded table of lengths, the same
for every door; all that is timed is the environment.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym import Episode, Prompt, Span, Task, TextGenEnv, TextGenVectorEnv, releases, symbol_tokenizer

LATE_STEPS = 400


@dataclass(frozen=True)
class EnvBenchConfig:
    """The load of the step benchmark."""

    slots: int = 64
    """Texts side by side."""
    prompt_tokens: int = 100
    """Room for the prompt, all of it used."""
    new_tokens: int = 1000
    """Length limit; with the prompt this makes the context."""
    vocab_size: int = 4096
    """Tokens."""
    steps: int = 4000
    """Timed steps per repeat (a tenth of them for SyncVectorEnv)."""
    repeats: int = 5
    """Medians of this many are reported."""
    threads: int = 1
    """torch threads."""
    seed: int = 0
    """Of prompts, actions and lengths."""

    def describe(self) -> str:
        """Say what the load is, in a line."""
        return (
            f"one step of {self.slots} slots, context {self.prompt_tokens + self.new_tokens:,}, V {self.vocab_size}, median of "
            f"{self.repeats}"
        )


@dataclass(frozen=True)
class EnvRow:
    """One figure of the benchmark."""

    name: str
    """What was timed."""
    microseconds: float
    """Median over the repeats."""
    note: str = ""
    """What else there is to say."""


class _Load(Task):
    """Prompts of random tokens; two spans in two streams pay every text."""

    def __init__(self, config: EnvBenchConfig, pause: float = 0.0) -> None:
        self.tokenizer = symbol_tokenizer([chr(0x4E00 + i) for i in range(config.vocab_size - 2)])
        self.max_prompt_tokens = config.prompt_tokens
        self.max_new_tokens = config.new_tokens
        self.vocab_size = config.vocab_size
        self.pause = pause

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw random tokens."""
        return Prompt("random", rng.integers(2, self.vocab_size, size=self.max_prompt_tokens))

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Any]:
        """Pay the first half of a text 1 and the second -1, after a pause if there is one."""
        if self.pause:
            time.sleep(self.pause)
        return [self._spans(len(episode.text)) for episode in episodes]

    def _spans(self, count: int) -> list[Span]:
        middle = count // 2
        halves = [(0, middle, 1.0, 0), (middle, count, -1.0, 1)]
        return [Span(start, end, reward, stream) for start, end, reward, stream in halves if start < end]


def bench_env(config: EnvBenchConfig) -> list[EnvRow]:
    """Time one step of each door, side by side in one run."""
    torch.set_num_threads(config.threads)
    load = _Load(config)
    rows = []
    for lengths in ((1, config.new_tokens), (1, 64)):
        for name, make in (
            ("numpy", lambda: TextGenVectorEnv(config.slots, load)),
            ("torch", lambda: TextGenVectorEnv(config.slots, load, output="torch")),
            ("SyncVectorEnv of single environments", lambda: _sync(config, load)),
        ):
            steps = config.steps // 10 if name.startswith("Sync") else config.steps
            times = [_per_step(make(), config, lengths, steps, seed=i) for i in range(config.repeats)]
            rows.append(EnvRow(f"step, {name}", statistics.median(times), f"texts end at uniform 1 to {lengths[1]:,} tokens"))
    for name, output in (("numpy", "numpy"), ("torch", "torch")):
        short, long = _growth(TextGenVectorEnv(config.slots, load, output=output), config)  # type: ignore[arg-type]
        note = f"long against short {long / short - 1:+.0%}"
        rows.append(EnvRow(f"step less its copy of the observation, {name}, texts of 10 tokens", short))
        rows.append(EnvRow(f"step less its copy of the observation, {name}, texts of {config.new_tokens:,} tokens", long, note))
    return rows


def bench_late(config: EnvBenchConfig) -> list[EnvRow]:
    """Time a policy of 5 ms a step with rewards of 50 ms a batch: at once, and late with one worker."""
    rows = []
    slots, policy, pause = 32, 0.005, 0.05
    contestants: list[tuple[str, Task, dict[str, Any]]] = [
        ("rewards that cost nothing", _Load(config), {}),
        ("rewards of 50 ms a batch, one worker", _Load(config, pause), {"reward_workers": 1, "max_pending": 4 * slots}),
        ("rewards of 50 ms a batch, in the step", _Load(config, pause), {}),
    ]
    for name, task, options in contestants:
        envs = TextGenVectorEnv(slots, task, **options)
        microseconds = _per_step(envs, config, (1, 64), LATE_STEPS, seed=0, policy=policy, drain=True)
        loss = "" if not rows else f"throughput {rows[0].microseconds / microseconds - 1:+.1%} against none"
        rows.append(EnvRow(f"step and policy (5 ms), {slots} slots, {name}", microseconds, loss))
        envs.close()
    return rows


def _sync(config: EnvBenchConfig, load: Task) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: TextGenEnv(load)] * config.slots, autoreset_mode=AutoresetMode.SAME_STEP)


def _per_step(
    envs: Any, config: EnvBenchConfig, lengths: tuple[int, int], steps: int, seed: int, policy: float = 0.0, drain: bool = False
) -> float:
    """Microseconds per step, ends and resets included; what ended is read, as a learner would."""
    rng = np.random.default_rng(config.seed + seed)
    slots = envs.num_envs
    envs.reset(seed=config.seed)
    # Texts begin in the middle of their lives, so that ends are as frequent in the first step as in the last.
    left = rng.integers(1, rng.integers(lengths[0], lengths[1] + 1, size=slots) + 1)
    actions = rng.integers(2, config.vocab_size, size=(64, slots))
    start = time.perf_counter()
    for step in range(steps):
        row = actions[step % 64].copy()
        left -= 1
        ended = left <= 0
        row[ended] = 1
        if ended.any():
            left[ended] = rng.integers(lengths[0], lengths[1] + 1, size=int(ended.sum()))
        if policy:
            time.sleep(policy)
        infos = envs.step(row)[4]
        releases(infos)
    if drain:
        envs.drain()
    return (time.perf_counter() - start) / steps * 1e6


def _growth(envs: Any, config: EnvBenchConfig) -> tuple[float, float]:
    """Microseconds of a step without its copy of the observation, for texts of 10 and of ``new_tokens`` tokens: medians."""
    rng = np.random.default_rng(config.seed)
    actions = rng.integers(2, config.vocab_size, size=(64, config.slots))
    spent: dict[str, list[float]] = {"short": [], "long": []}
    for _ in range(3 * config.repeats):
        envs.reset(seed=config.seed)
        for step in range(config.new_tokens - 1):
            when = "short" if step < 20 else "long" if step >= config.new_tokens - 21 else ""
            before = time.perf_counter()
            envs.step(actions[step % 64])
            after = time.perf_counter()
            if when:
                envs._store.observation()
                spent[when].append((after - before - (time.perf_counter() - after)) * 1e6)
    return statistics.median(spent["short"]), statistics.median(spent["long"])
