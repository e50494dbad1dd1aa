"""Is learning the same whatever makes it fast? The number duel, with each way of laying out, dividing and collecting texts.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python tests/long/same_learning.py

Packed, sorted and padded texts, passes of 256 cells, a head in small chunks: the same gradient, so one
curve but for rounding. Carried-over episodes: other episodes, so the same curve within the noise of seeds. Prints the mean score over all updates
(the area under the curve), when .9 was reached for good, and the score at the end.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from textgym_agents import head
from textgym_agents.ppo import PPOConfig
from textgym_agents.train import TrainConfig, train

WAYS = {
    "packed (the default)": {},
    "sorted": {"packing": "sorted"},
    "padded": {"packing": "padded"},
    "packed, passes of 256 cells": {"microbatch_tokens": 256},
    "packed, head in chunks of 512 logits": {"chunk": 512},
    "packed, carried over": {"carry_over": True},
}
CHUNK = head.CHUNK_ELEMENTS


def curve(way: dict, seed: int, updates: int) -> np.ndarray:
    """Train once; give the score of every update's episodes."""
    options = dict(way)
    head.CHUNK_ELEMENTS = options.pop("chunk", CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = TrainConfig(
            seed=seed, updates=updates, num_slots=128, out=out, device="cpu", ppo=replace(PPOConfig(), **options)
        )
        train(config)
        lines = (out / "metrics.jsonl").read_text().splitlines()
    return np.array([float(line.split('"score": ')[1].split(",")[0]) for line in lines])


def main(seeds: int = 3, updates: int = 60) -> None:
    torch.set_num_threads(1)
    print("| way | mean score over the updates | .9 for good after update | score at the end | farthest from the first way |")
    print("|---|---|---|---|---|", flush=True)
    first: list[np.ndarray] = []
    for name, way in WAYS.items():
        curves = [curve(way, seed, updates) for seed in range(seeds)]
        first = first or curves
        areas = [c.mean() for c in curves]
        reached = [int(np.flatnonzero(c < 0.9).max(initial=-1)) + 2 for c in curves]
        apart = max(float(np.abs(c - f).max()) for c, f in zip(curves, first, strict=True))
        cells = [
            " ".join(f"{area:.3f}" for area in areas),
            " ".join(map(str, reached)),
            " ".join(f"{c[-1]:.3f}" for c in curves),
            f"{apart:.3f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
