"""500 responses per dataset and form of answer: the task's reward against reasoning-gym's own scorer. About a minute.

python tests/long/reasoning_gym_scores.py
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from test_reasoning_gym import DATASETS, agreement

for dataset in DATASETS:
    for answer in ("whole", "marker", "tags"):
        scores = agreement(dataset, answer, 500)
        right = Counter(score == 1.0 for score in scores)[True]
        print(f"{dataset:>18} {answer:>7}: 500 agree, {right} of them right, mean score {sum(scores) / 500:.3f}")
