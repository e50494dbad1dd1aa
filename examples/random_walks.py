"""Random walks, the task that trlX is measured on: optimality before PPO, after 420 and after 2,800 episodes, and CPU time.

    python examples/random_walks.py            # 5 seeds x 4 graphs x 2 rewards: 40 runs of under a minute each
    python examples/random_walks.py --graphs 1000 --rewards scalar --jobs 2
    python examples/random_walks.py --quick    # the same path with a short warm-up and a few updates

The settings are those of ``textgym train --task textgym/RandomWalks-v0``. Each run is a process of its own with one thread;
its CPU time is user + system of that process: imports, warm-up, learning and all evaluations.
"""

import copy
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro
from gymnasium.vector import AutoresetMode
from textgym_agents import PPO, ActorCritic, CausalLMPolicy
from textgym_agents.evaluate import play
from textgym_agents.presets import preset
from textgym_agents.train import Reporter, TrainConfig, build_policy, build_task, warm_up_policy

from textgym import TextGenVectorEnv
from textgym.tasks.random_walks import RandomWalks

MARKS = (420, 2800)
TRLX = {420: (0.860, 0.880, 0.846), 2800: (0.939, 0.980, 0.896)}
"""Unmodified trlX on graph 1000 with the scalar reward, three training seeds; about 75 CPU seconds a run."""


@dataclass
class Args:
    """Options."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    graphs: tuple[int, ...] = (1000, 1, 2, 3)
    """Graph seeds; 1000 is the reference."""
    rewards: tuple[Literal["scalar", "dense"], ...] = ("scalar", "dense")
    """Reward forms: the optimality on the last token, or each move judged."""
    jobs: int = 1
    """Runs side by side, one thread each."""
    plays: int = 50
    """Episodes from each of the start nodes, per evaluation."""
    out: Path = Path("runs/random_walks")
    """Where the rows go; finished runs are kept."""
    quick: bool = False
    """One short run of each reward form: to see that everything works."""


def optimality(task: RandomWalks, model: ActorCritic, plays: int, seed: int) -> float:
    """Play every start node equally often, at temperature 1; give the mean optimality."""
    scores = []
    for node in task.starts:
        one = copy.copy(task)
        one.starts = [node]
        policy = CausalLMPolicy(model, plays, seed=seed + 1000 * node)
        played = play(one, policy, episodes=plays, num_slots=plays, seed=seed, device="cpu")
        scores.append(one.score([episode for episode, _ in played]))
    return sum(scores) / len(scores)


def run(config: TrainConfig, marks: Sequence[int], plays: int) -> dict[str, Any]:
    """Warm up and learn once; look at the policy before, and after so many episodes as ``marks`` say."""
    torch.set_num_threads(1)
    task = build_task(config)
    assert isinstance(task, RandomWalks)
    policy = build_policy(config, task, "cpu")
    warm_up_policy(config, task, policy, Reporter())
    row = {"key": key(config), "0": optimality(task, policy.model, plays, config.seed)}
    agent = PPO(policy, config.ppo, seed=config.seed)
    envs = TextGenVectorEnv(config.num_slots, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=config.seed)

    def look(figures: Any) -> None:
        if figures["episodes"] in marks:
            row[str(figures["episodes"])] = optimality(task, policy.model, plays, config.seed)

    agent.learn(envs, config.updates * config.ppo.episodes_per_update, look)
    envs.close()
    return {**row, "cpu_seconds": time.process_time()}


def key(config: TrainConfig) -> str:
    """Name a run: graph, reward form, training seed."""
    return f"{config.task_args['graph_seed']} {config.task_args['reward']} {config.seed}"


def configs(args: Args) -> list[TrainConfig]:
    """List every run of the table."""
    runs = []
    for graph in args.graphs:
        for reward in args.rewards:
            for seed in args.seeds:
                task_args = {"graph_seed": graph, "reward": reward}
                runs.append(preset("textgym/RandomWalks-v0", task_args=task_args, seed=seed, device="cpu"))
    if args.quick:
        return [replace(config, layers=2, warmup_steps=50, updates=2) for config in runs]
    return runs


def table(rows: Sequence[dict[str, Any]], marks: Sequence[int]) -> str:
    """Write the rows as Markdown: mean (and worst seed) of each graph and reward form, then the seeds one by one."""
    names = ["0", *map(str, marks)]
    head = ["graph", "reward", *(f"{name} episodes" for name in names), "CPU s, most", "by seed, " + " / ".join(names[1:])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["key"].rpartition(" ")[0], []).append(row)
    for label, group in groups.items():
        columns = [[row[name] for row in group] for name in names]
        cells = [f"{sum(column) / len(column):.3f} ({min(column):.3f})" for column in columns]
        seeds = ", ".join("/".join(f"{row[name]:.3f}" for name in names[1:]) for row in group)
        most = max(row["cpu_seconds"] for row in group)
        lines.append(f"| {' | '.join([*label.split(), *cells, f'{most:.0f}', seeds])} |")
    if tuple(marks) == MARKS:
        cells = [f"{sum(TRLX[mark]) / 3:.3f} ({min(TRLX[mark]):.3f})" for mark in MARKS]
        seeds = ", ".join("/".join(f"{figure:.3f}" for figure in seed) for seed in zip(*TRLX.values(), strict=True))
        lines.append(f"| 1000 | trlX, scalar | .31 to .33 | {' | '.join(cells)} | about 75 | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    args = tyro.cli(Args)
    marks = MARKS
    if args.quick:
        args.seeds, args.graphs, args.plays, args.out, marks = (0,), (1000,), 5, args.out / "quick", (140,)
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    todo = [config for config in configs(args) if key(config) not in {row["key"] for row in rows}]
    pool = ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)  # its time is the run's
    with pool, log.open("a") as file:
        for future in as_completed([pool.submit(run, config, marks, args.plays) for config in todo]):
            rows.append(future.result())
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            print(f"{len(rows)} done: {rows[-1]}", flush=True)
    order = [key(config) for config in configs(args)]
    print("\nmean over seeds (worst seed):\n")
    print(table(sorted((row for row in rows if row["key"] in order), key=lambda row: order.index(row["key"])), marks))


if __name__ == "__main__":
    main()
