"""The table of the README: what the two speakers learn from streams, from one stream, and from a scalar.

    python examples/duel_table.py            # 50 runs on two cores: about half an hour; finished runs are kept
    python examples/duel_table.py --quick    # the same path with a few updates
    python examples/duel_table.py --sentences    # three_sentences instead: dense rewards beside the scalar

Each run is a row in <out>/runs.jsonl, so a run that was interrupted goes on where it stopped.
"""

import json
import math
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two runs share two cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro
from textgym_agents.ppo import PPOConfig
from textgym_agents.train import TrainConfig, train

DUEL = {
    "streams": {},
    "one stream": {"streams": False},
    "scalar sum": {"rewards": "scalar"},
    "one stream, lambda .95": {"streams": False, "ppo": PPOConfig(gae_lambda=0.95)},
    "one stream, same numerals": {"streams": False, "task_args": {"numerals": "digits"}},
}
SENTENCES = {
    "dense, streams": {},
    "dense, one stream": {"streams": False},
    "scalar sum": {"rewards": "scalar"},
    "dense, streams, even split": {"task_args": {"split": "even"}},
}


@dataclass
class Args:
    """Options."""

    sentences: bool = False
    """Run three_sentences instead of the number duel."""
    seeds: int = 5
    """Seeds 0, 1, ... of each row."""
    updates: int = 80
    """Updates of 256 episodes."""
    processes: int = 2
    """Runs side by side, one thread each."""
    out: Path = Path("runs/duel_table")
    """Where the rows and run folders go."""
    quick: bool = False
    """One seed, a few updates: to see that everything runs."""


def configs(args: Args) -> dict[str, TrainConfig]:
    """Name every run of the table."""
    runs = {}
    for masses in [None] if args.sentences else [(1.0, -1.0), (1.0, 0.0)]:
        for name, options in (SENTENCES if args.sentences else DUEL).items():
            for seed in range(1 if args.quick else args.seeds):
                task_args = dict(options.get("task_args", {})) | ({} if masses is None else {"masses": masses})
                short = {"warmup_steps": 150, "eval_episodes": 256} if args.quick else {}
                key = f"{name} | {masses} | {seed}"
                runs[key] = TrainConfig(
                    task="three_sentences" if args.sentences else "number_duel",
                    seed=seed,
                    updates=2 if args.quick else args.updates,
                    device="cpu",
                    out=args.out / key.replace(" | ", "-").replace(" ", "_"),
                    **{**options, **short, "task_args": task_args},
                )
    return runs


def run(key: str, config: TrainConfig) -> dict[str, Any]:
    """Do one run in a process of its own."""
    done = train(config)
    return {"key": key, "before": done.before, "after": done.after, "seconds": done.seconds}


def table(rows: list[dict[str, Any]], sentences: bool) -> str:
    """Write the rows as Markdown: mean over seeds, and the worst seed."""
    names = ["score", "first", "second", *(["third"] if sentences else []), "well_formed"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        label = row["key"].rpartition(" | ")[0].replace(" | None", "").replace(" | ", ", masses ")
        groups.setdefault(label, []).append(row)
    digits = {name: 1 if name in ("first", "second") and not sentences else 3 for name in names}
    lines = ["| rewards | kept the form | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    start = [row["before"] for row in rows]
    for label, figures in [("update 0", start), *((key, [row["after"] for row in group]) for key, group in groups.items())]:
        cells = []
        for name in names:
            values = [figure[name] for figure in figures if not math.isnan(figure[name])]
            cells.append(f"{sum(values) / len(values):.{digits[name]}f} ({min(values):.{digits[name]}f})" if values else "-")
        kept = sum(figure["well_formed"] > 0.9 for figure in figures)
        lines.append(f"| {label} | {kept} of {len(figures)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    args = tyro.cli(Args)
    args.out = args.out / (("three_sentences" if args.sentences else "number_duel") + ("-quick" if args.quick else ""))
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {row["key"] for row in rows}
    todo = {key: config for key, config in configs(args).items() if key not in done}
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool, log.open("a") as file:
        for future in as_completed([pool.submit(run, key, config) for key, config in todo.items()]):
            rows.append(future.result())
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            print(f"{len(rows)} done: {rows[-1]['key']}", flush=True)
    order = list(configs(args))
    print("\nmean over seeds (worst seed):\n")
    print(table(sorted((row for row in rows if row["key"] in order), key=lambda row: order.index(row["key"])), args.sentences))


if __name__ == "__main__":
    main()
