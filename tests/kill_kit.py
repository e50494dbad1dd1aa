"""A suite that is killed: what both the short and the long test of it share."""

import signal
import subprocess
import sys
import time

import numpy as np

SETTINGS = """
seeds = {seeds}
[[blocks]]
task = "copying"
rewards = ["scalar", "prefix_difference"]
agents = ["ppo"]
episodes = 64
task_args = {{ length = 3, alphabet = 4 }}
[blocks.options]
layers = 1
width = 16
heads = 2
num_slots = 8
eval_episodes = 16
warmup_steps = 0
episodes_per_update = 8
"""


def deterministic(rows):
    """Leave out what a clock says, and put the rows into one order."""
    kept = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    return sorted(kept, key=lambda row: (row["key"], row["seed"]))


def begin(*args):
    """Start ``textgym bench`` in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "textgym_agents.cli", "bench", *args], stdout=subprocess.PIPE, text=True)


def kill_after(process, path, lines, seconds):
    """Kill a suite ``seconds`` after its file holds so many rows, or let it end. Returns whether it was killed."""
    while process.poll() is None and (path.read_bytes().count(b"\n") if path.exists() else 0) < lines:
        time.sleep(0.01)
    time.sleep(seconds)
    killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return killed


def tear(path, rng: np.random.Generator):
    """Leave of the last row what a kill in the middle of a write would: its beginning."""
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[: int(rng.integers(last + 1, len(whole)))])
