"""Measure every credit assigner on every probe against the exact truth, and let matching pennies cycle.

python examples/credit_probes.py
python examples/credit_probes.py --quick
"""

import sys

import numpy as np

from textgym.credit import Attention, Discounted, KeepLast, Last, LeaveOneOut, MonteCarlo, PrefixDifference, Shapley, Uniform
from textgym.exact import Enumeration, credit_error

PROBES = ["decisive", "joint", "distractors", "reply", "length", "streams", "duel"]
FIGURES = ["cosine", "sign_accuracy", "rank_correlation", "variance"]


def contestants(texts, logits):
    """Name -> assigner (None: the task's own rewards) and what a token is credited with."""
    looks = Attention(lambda episodes: [1.0 + (e.ids * 7 % 5) for e in episodes], beta=1.0)  # looks anywhere, at random
    return {
        "exact rewards": (None, "reward_to_go"),
        "last": (Last(), "reward_to_go"),
        "uniform": (Uniform(), "reward_to_go"),
        "uniform, whole stream": (Uniform(), "whole_stream"),
        "uniform, half kept last": (KeepLast(Uniform()), "reward_to_go"),
        "discounted .9": (Discounted(0.9), "reward_to_go"),
        "prefix difference": (PrefixDifference(), "reward_to_go"),
        "prefix difference, own token": (PrefixDifference(), "token"),
        "leave one out": (LeaveOneOut(), "reward_to_go"),
        "leave one out, whole stream": (LeaveOneOut(), "whole_stream"),
        "Shapley": (Shapley(), "reward_to_go"),
        "Shapley, own token": (Shapley(), "token"),
        "Shapley, whole stream": (Shapley(), "whole_stream"),
        "attention (random), all of it": (looks, "reward_to_go"),
        "Monte Carlo, k 4": (MonteCarlo(continuations=texts.continuations(logits)), "reward_to_go"),
        "Monte Carlo, k 4, own token": (MonteCarlo(continuations=texts.continuations(logits)), "token"),
    }


def measure(seeds):
    """Mean figures over policies: {assigner: {probe: [cosine, sign, rank, variance, calls]}}."""
    table = {}
    for probe in PROBES:
        texts = Enumeration(f"probe_{probe}", "position" if probe in ("streams", "duel") else "history")
        for seed in range(seeds):
            logits = texts.random_logits(seed)
            for name, (assigner, returns) in contestants(texts, logits).items():
                error = credit_error(texts, logits, assigner, returns)
                figures = [*(getattr(error, figure) for figure in FIGURES), error.reward_calls]
                table.setdefault(name, {}).setdefault(probe, []).append(figures)
    return {name: {probe: np.mean(rows, axis=0) for probe, rows in row.items()} for name, row in table.items()}


def pennies(steps, size=0.1):
    """Ascend both streams' own gradients: turns around the even mixture, and how far from it the walk starts and ends."""
    texts = Enumeration("probe_pennies", "position")
    logits, heads, releases = texts.random_logits(1, 0.5), texts.rules.tokenizer.encode("hH"), texts.releases()
    path = []
    for _ in range(steps):
        path.append(texts.policy(logits)[[0, 1], heads] - 0.5)
        logits = logits + size * texts.gradient(logits, texts.credit(releases, "whole_stream"))
    angle = np.unwrap(np.arctan2(*np.array(path).T))
    return abs(angle[-1] - angle[0]) / (2 * np.pi), np.linalg.norm(path[0]), np.linalg.norm(path[-1])


def main() -> None:
    table = measure(1 if "--quick" in sys.argv else 5)
    for place, figure in enumerate(FIGURES):
        print(f"\n| {figure.replace('_', ' ')} | {' | '.join(PROBES)} |\n|---|{'---|' * len(PROBES)}")
        for name, row in table.items():
            print(f"| {name} | {' | '.join('none' if np.isnan(row[p][place]) else f'{row[p][place]:.2f}' for p in PROBES)} |")
    print(f"\n| reward calls per text | {' | '.join(PROBES)} |\n|---|{'---|' * len(PROBES)}")
    for name, row in table.items():
        if any(row[probe][-1] for probe in PROBES):
            print(f"| {name} | {' | '.join(f'{row[p][-1]:.0f}' for p in PROBES)} |")
    turns, start, end = pennies(200 if "--quick" in sys.argv else 5000)
    print(f"\nmatching pennies: {turns:.1f} turns around the even mixture, distance {start:.2f} -> {end:.2f}")


if __name__ == "__main__":
    main()
