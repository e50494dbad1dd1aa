"""Is learning the same whatever makes it fast? Random walks, with each way of laying out, dividing and collecting texts.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python tests/long/same_learning.py

Packed, sorted and padded texts, passes of 64 cells, a head in small chunks: the same gradient, so one curve but for rounding.
Carried-over episodes: other episodes, so the same curve within the noise of seeds. Prints, for each training seed, the mean
optimality of all episodes played while learning (the area under the curve), and that of the last ten updates.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from textgym_agents import head
from textgym_agents.presets import preset
from textgym_agents.train import Reporter, train

WAYS = {
    "packed (the default)": {},
    "sorted": {"packing": "sorted"},
    "padded": {"packing": "padded"},
    "packed, passes of 64 cells": {"microbatch_tokens": 64},
    "packed, head in chunks of 256 logits": {"chunk": 256},
    "packed, carried over": {"carry_over": True},
}
CHUNK = head.CHUNK_ELEMENTS


class Chunks(Reporter):
    """Sets the head's chunks when learning begins: the warm-up's rounding would make another model of it."""

    def __init__(self, elements: int) -> None:
        self.elements = elements

    def phase(self, name: str, total: int) -> None:
        head.CHUNK_ELEMENTS = self.elements if name == "learning" else CHUNK


def curve(way: dict, seed: int) -> np.ndarray:
    """Train once, with the settings of the task; give the score of every update's episodes."""
    options = dict(way)
    chunks = Chunks(options.pop("chunk", CHUNK))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        config = preset("random_walks", seed=seed, out=out, device="cpu", eval_episodes=70)
        # Fewer slots than episodes, so that texts are unfinished when a collection ends.
        train(replace(config, num_slots=20, ppo=replace(config.ppo, **options)), chunks)
        lines = (out / "metrics.jsonl").read_text().splitlines()
    return np.array([float(line.split('"score": ')[1].split(",")[0]) for line in lines])


def main(seeds: int = 3) -> None:
    torch.set_num_threads(1)
    print("| way | mean optimality while learning | of the last ten updates | mean distance to the first way |")
    print("|---|---|---|---|", flush=True)
    first: list[np.ndarray] = []
    for name, way in WAYS.items():
        curves = [curve(way, seed) for seed in range(seeds)]
        first = first or curves
        apart = np.mean([np.abs(c - f).mean() for c, f in zip(curves, first, strict=True)])
        areas, ends = (" ".join(f"{c[part].mean():.3f}" for c in curves) for part in (slice(None), slice(-10, None)))
        print(f"| {name} | {areas} | {ends} | {apart:.4f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
