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
    undisturbed: Path | None = None
    """Folder of an undisturbed run of the same version; None: it is run here."""


def main() -> None:
    args = tyro.cli(Args)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "killed" / "rows.jsonl"
        for number in range(args.kills):
            seconds = float(rng.uniform(3, 20))
            killed = kill_after(begin("tiny", "--out", str(path.parent), "--no-plot"), path, 0, seconds)
            rows = len(read_rows(path))
            if number % 2 and rows:
                tear(path, rng)
            print(f"{'killed' if killed else 'ended'} after {seconds:.1f} s: {rows} rows", flush=True)
        killed_rows = suite("tiny", SuiteConfig(out=path.parent, plot=False)).rows
        lines = path.read_bytes().count(b"\n")
        other = args.undisturbed or Path(folder) / "undisturbed"
        undisturbed = suite("tiny", SuiteConfig(out=other, plot=False)).rows
    same = deterministic(killed_rows) == deterministic(undisturbed) and lines == len(undisturbed)
    print(f"{lines} lines; rows {'are the same' if same else 'DIFFER'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
