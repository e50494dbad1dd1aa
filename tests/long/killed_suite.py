"""Does ``textgym bench tiny`` survive kill -9? Ten of them at random moments, then the rest, against an undisturbed run.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python tests/long/killed_suite.py
    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python tests/long/killed_suite.py --undisturbed runs/bench-tiny

Every second kill also tears the last row, as a kill in the middle of its write would. Ends with 1 where the rows differ.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from textgym_agents.suite import SuiteConfig, suite

from textgym.suite.journal import read_rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kill_kit import begin, deterministic, kill_after, tear


@dataclass
class Args:
    """Options."""

    kills: int = 10
    """How many."""
    seed: int = 0
    """Of the moments."""
    seeds: int = 4
    """Of ``tiny``; each is 10 runs."""
    undisturbed: Path | None = None
    """Folder of an undisturbed run of the same version; None: it is run here."""


def main() -> None:
    args = tyro.cli(Args)
    rng = np.random.default_rng(args.seed)
    seeds = ["--seeds", str(args.seeds)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "killed" / "rows.jsonl"
        for number in range(args.kills):
            new, seconds = int(rng.integers(4)), float(rng.uniform(0, 5))  # none: while it starts, or in the first runs
            lines = (path.read_bytes().count(b"\n") if path.exists() else 0) + new
            killed = kill_after(begin("tiny", *seeds, "--out", str(path.parent), "--no-plot"), path, lines, seconds)
            rows = len(read_rows(path))
            if number % 2 and rows:
                tear(path, rng)
            print(f"{'killed' if killed else 'ended'} {seconds:.1f} s after {new} new rows: {rows} rows", flush=True)
        killed_rows = suite("tiny", SuiteConfig(out=path.parent, plot=False, seeds=args.seeds)).rows
        lines = path.read_bytes().count(b"\n")
        other = args.undisturbed or Path(folder) / "undisturbed"
        undisturbed = suite("tiny", SuiteConfig(out=other, plot=False, seeds=args.seeds)).rows
    same = deterministic(killed_rows) == deterministic(undisturbed) and lines == len(undisturbed)
    print(f"{lines} lines; rows {'are the same' if same else 'DIFFER'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
