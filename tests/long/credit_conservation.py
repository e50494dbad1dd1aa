"""Every assigner over 100,000 random episodes: how far the float32 token rewards are from the score, at worst.

python tests/long/credit_conservation.py
python tests/long/credit_conservation.py --episodes 2000
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from credit_kit import assigners, random_episode, random_scores, worst_gap

BATCH = 1000
ALLOWED = 1e-6  # of max(1, |score|)


def main() -> None:
    count = int(sys.argv[sys.argv.index("--episodes") + 1]) if "--episodes" in sys.argv else 100_000
    print(f"| assigner | worst gap over {count:,} episodes | seconds |\n|---|---|---|")
    failed = []
    for name, assigner in assigners().items():
        rng, worst, start = np.random.default_rng(0), 0.0, time.process_time()
        for first in range(0, count, BATCH):
            episodes = [random_episode(rng, first + number, longest=7) for number in range(min(BATCH, count - first))]
            worst = max(worst, worst_gap(assigner, episodes, random_scores(rng, len(episodes))))
        print(f"| {name} | {worst:.1e} | {time.process_time() - start:.0f} |", flush=True)
        failed += [name] if worst > ALLOWED else []
    if failed:
        sys.exit(f"not within {ALLOWED}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
