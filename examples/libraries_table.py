"""Every library's learning curve with token rewards and with the terminal sum, as one Markdown table.

python examples/libraries_table.py                       # 3 seeds, all examples/*.py that define learn(rewards, tokens, seed)
python examples/libraries_table.py --only tianshou_ppo --seeds 1
python examples/libraries_table.py --quick
"""

import argparse
import importlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """What one library's curves, one per seed and form, come to."""

    sum_score: float
    sum_tokens: float | None
    token_tokens: float | None
    ratio: float | None = field(init=False)

    def __post_init__(self):
        known = self.sum_tokens is not None and self.token_tokens is not None
        object.__setattr__(self, "ratio", self.token_tokens / self.sum_tokens if known else None)


def smooth(scores, width=5):
    """Average each score with up to ``width - 1`` before it: it never looks ahead."""
    scores = np.asarray(scores, dtype=float)
    return np.array([scores[max(0, i + 1 - width) : i + 1].mean() for i in range(len(scores))])


def reach(curve, score, width=5):
    """Give the tokens after which the smoothed curve first has ``score``, read off between points; else None."""
    tokens, smoothed = np.array([point[0] for point in curve], dtype=float), smooth([point[1] for point in curve], width)
    above = np.flatnonzero(smoothed >= score)
    if len(above) == 0:
        return None
    i = above[0]
    if i == 0:
        return float(tokens[0])
    share = (score - smoothed[i - 1]) / (smoothed[i] - smoothed[i - 1])
    return float(tokens[i - 1] + share * (tokens[i] - tokens[i - 1]))


def mean_curve(curves):
    """Average curves of several seeds on the points of the first; those of the others are read off as straight lines."""
    grid = [tokens for tokens, _ in curves[0] if tokens <= min(curve[-1][0] for curve in curves)]
    scores = [np.interp(grid, *np.array(curve, dtype=float).T) for curve in curves]
    return list(zip(grid, np.mean(scores, axis=0).tolist(), strict=True))


def compare(sums, tokens):
    """Compare the mean curves: the score is that of the sum at its end, smoothed, and both say when they first reach it."""
    mean = mean_curve(sums)
    score = float(smooth([point[1] for point in mean])[-1])
    return Row(score, reach(mean, score), reach(mean_curve(tokens), score))


def find(name):
    """Import the example and give its ``learn``; None, with a message, for RLlib's where there is no ray."""
    try:
        return importlib.import_module(name).learn
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        print(f"{name} is left out: it needs ray, which pins Gymnasium, so that few environments have both", file=sys.stderr)
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 seed, 4,096 tokens")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=61_440)
    parser.add_argument("--only", nargs="*", help="names of examples; default: all that define learn")
    args = parser.parse_args()
    seeds, budget = (1, 4096) if args.quick else (args.seeds, args.tokens)
    here = Path(__file__).parent
    names = args.only or [path.stem for path in sorted(here.glob("*.py")) if "\ndef learn(rewards" in path.read_text()]
    print(f"{seeds} seeds, {budget} tokens each; scores: mean share of right symbols\n")
    print("| example | score, sum | tokens, sum | tokens, token rewards | ratio | CPU s, sum | CPU s, token rewards |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        learn, curves, seconds = find(name), {}, {}
        if learn is None:
            continue
        for form in ("sum", "tokens"):
            begun = time.process_time()
            curves[form] = [learn(form, budget, seed) for seed in range(seeds)]
            seconds[form] = (time.process_time() - begun) / seeds
        row = compare(curves["sum"], curves["tokens"])
        cells = ["not reached" if value is None else f"{value:,.0f}" for value in (row.sum_tokens, row.token_tokens)]
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        cells += [ratio, *(f"{seconds[form]:.0f}" for form in ("sum", "tokens"))]
        print(f"| {name} | {row.sum_score:.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
