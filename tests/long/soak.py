"""Soak: a million episodes through one environment; its memory must not grow.

    OMP_WAIT_POLICY=PASSIVE python tests/long/soak.py

64 slots, texts of 10 tokens in the mean, spans and streams on, every release read. Prints resident memory at 100,000 episodes
and at the end; exits with 1 where they differ by 1 MiB or more.
"""

import argparse
import gc
import sys
import time
from pathlib import Path

import numpy as np

import textgym
from textgym import PromptTask
from textgym.parts import lines, pay


def judge(episodes):
    """Pay each line by its length, each in a stream of its own."""
    out = []
    for episode in episodes:
        parts = lines(episode)
        out.append(pay(parts, [float(part.end - part.start) for part in parts], streams=True))
    return out


def resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """Play, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--output", choices=["numpy", "torch"], default="numpy")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    tokenizer = textgym.symbol_tokenizer(list("abcdefgh .\n"))
    task = PromptTask(["a", "bc", "def"], tokenizer, judge, max_new_tokens=64, causal_streams=True)
    envs = textgym.TextGenVectorEnv(64, task, output=options.output, reward_workers=options.workers)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    ended = tokens = 0
    first = None
    start = time.perf_counter()
    while ended < options.episodes:
        actions = rng.integers(2, len(tokenizer), size=64)
        actions[rng.random(64) < 0.1] = 1
        for release in textgym.releases(envs.step(actions)[4]):
            ended += 1
            tokens += release.num_tokens
            if ended == options.episodes // 10:
                gc.collect()
                first = resident()
                print(f"{ended:,} episodes: {first / 2**20:.2f} MiB, {time.perf_counter() - start:.0f} s", flush=True)
    gc.collect()
    last = resident()
    assert first is not None
    print(f"{ended:,} episodes: {last / 2**20:.2f} MiB, {time.perf_counter() - start:.0f} s, mean length {tokens / ended:.2f}")
    print(f"difference {(last - first) / 2**20:+.3f} MiB")
    envs.drain()
    envs.close()
    sys.exit(last - first >= 2**20)


if __name__ == "__main__":
    main()
