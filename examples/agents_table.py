"""Agents side by side through `textgym train`'s own function: the table of docs/AGENTS.md.

python examples/agents_table.py                     # 18 runs, one after the other; finished runs are kept in <out>/runs.jsonl
python examples/agents_table.py --quick             # the same path with a few updates
python examples/agents_table.py --agents ppo ilql   # others
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro
from textgym_agents.presets import preset
from textgym_agents.train import train

TASKS = ("number_duel", "random_walks")
SHORT = {"updates": 2, "warmup_steps": 20, "eval_episodes": 70, "layers": 1, "width": 32, "heads": 2}


@dataclass
class Args:
    """Options."""

    agents: tuple[str, ...] = ("ppo", "reinforce", "rloo")
    """Short names, or "module:Name"."""
    seeds: int = 3
    """Seeds 0, 1, ... of each."""
    out: Path = Path("runs/agents_table")
    """Where the rows and run folders go."""
    quick: bool = False
    """One seed, a few updates: to see that everything runs."""


def run(task: str, agent: str, seed: int, args: Args) -> dict:
    """Do one run, with the settings that `textgym train --task TASK --agent AGENT --seed SEED` has."""
    folder = args.out / f"{task}-{agent.replace(':', '-')}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    done = train(preset(task, agent=agent, seed=seed, device="cpu", out=folder, **(SHORT if args.quick else {})))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    middle = rows[(len(rows) - 1) // 2]
    scores = {"before": done.before["score"], "half": middle["score"], "after": done.after["score"]}
    return {"task": task, "agent": agent, "seed": seed, "episodes": rows[-1]["episodes"], "seconds": done.seconds, **scores}


def table(rows: list[dict], args: Args) -> str:
    """Write the rows as Markdown: mean over seeds (worst seed)."""
    lines = ["| task | agent | seeds | episodes | before | half way | after | seconds |", "|---" * 8 + "|"]
    for task in TASKS:
        for agent in args.agents:
            group = [row for row in rows if (row["task"], row["agent"]) == (task, agent)]
            if group:
                means = {name: sum(row[name] for row in group) / len(group) for name in ("before", "half", "after", "seconds")}
                worst = {name: min(row[name] for row in group) for name in ("before", "half", "after")}
                cells = [f"{means[name]:.3f} ({worst[name]:.3f})" for name in worst]
                start = [task, agent, str(len(group)), f"{group[0]['episodes']:,.0f}"]
                lines.append(f"| {' | '.join([*start, *cells, format(means['seconds'], '.0f')])} |")
    return "\n".join(lines)


def main() -> None:
    args = tyro.cli(Args)
    args.out, args.seeds = (args.out.with_name(args.out.name + "-quick"), 1) if args.quick else (args.out, args.seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["task"], row["agent"], row["seed"]) for row in rows}
    for seed in range(args.seeds):
        for task in TASKS:
            for agent in args.agents:
                if (task, agent, seed) not in done:
                    rows.append(run(task, agent, seed, args))
                    with log.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    print(f"{len(rows)}: {rows[-1]}", flush=True)
    print(table(rows, args))


if __name__ == "__main__":
    main()
