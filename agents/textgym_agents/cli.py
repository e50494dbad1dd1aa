"""``textgym train | bench | tasks``: options from dataclasses, a progress bar, tables.

Left out on purpose: anything a script could not do; every command is one function call.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers.utils import logging as transformers_logging

from textgym import resolve_name
from textgym.tasks import TASKS
from textgym.view.terminal import token_heatmap
from textgym_agents.bench_rollout import BenchConfig, bench_rollout
from textgym_agents.train import Reporter, Run, TrainConfig, train

_LIVE = ("loss", "score", "success", "first", "second")


def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    sys.path.insert(0, os.getcwd())  # "module:Name" finds the user's own files, as `python -m` would
    transformers_logging.disable_progress_bar()  # ours is the only bar
    command = tyro.extras.SubcommandApp()
    command.command(name="train")(_train)
    command.command(name="tasks")(_tasks)
    command.command(name="bench")(_bench)
    try:
        command.cli(prog="textgym", description="Learn from rewards given to parts of a generated text.", args=args)
    except (ValueError, TypeError) as error:
        if os.environ.get("TEXTGYM_TRACEBACK"):
            raise
        Console(stderr=True).print("error:", str(error), "(TEXTGYM_TRACEBACK=1 shows where)", markup=False, highlight=False)
        sys.exit(2)


def _train(config: tyro.conf.OmitArgPrefixes[TrainConfig]) -> None:
    """Train an agent on a task; with no options, PPO on the number duel, in about a minute on two CPU cores."""
    console = Console(quiet=int(os.environ.get("RANK", "0")) > 0)  # of several processes, the first one speaks
    with _bar(console) as progress:
        run = train(config, _BarReporter(progress))
    _print_run(run, console)


def _tasks() -> None:
    """List the shipped tasks."""
    table = Table("name", "environment id", "what it is", title="tasks")
    for name, target in TASKS.items():
        task = resolve_name(target)
        table.add_row(name, f"textgym/{task.__name__}-v0", (task.__doc__ or "").strip().splitlines()[0])
    Console().print(table)


def _bench(what: Annotated[str, tyro.conf.Positional], config: tyro.conf.OmitArgPrefixes[BenchConfig]) -> None:
    """Measure, side by side in one run. ``textgym bench rollout``: collect against Hugging Face generate.

    Args:
        what: "rollout".
        config: the load.
    """
    if what != "rollout":
        raise ValueError(f"there is no benchmark {what!r}; there is 'rollout'")
    console = Console()
    table = Table("rollout", "useful tokens/s", "against generate", title=config.describe())
    for row in bench_rollout(config):
        table.add_row(row.name, f"{row.tokens_per_second:,.0f}", f"{row.ratio:.2f}")
    console.print(table)


class _BarReporter(Reporter):
    """Shows a phase as a bar with its live figures."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = None

    def phase(self, name: str, total: int) -> None:
        self.task = self.progress.add_task(name, total=total, figures="")

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        assert self.task is not None
        live = "  ".join(f"{name} {_figure(figures[name])}" for name in _LIVE if name in figures)
        self.progress.update(self.task, completed=done, figures=live)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def _print_run(run: Run, console: Console) -> None:
    table = Table("", "before", "after", title=f"{run.seconds:.0f} s")
    for name, before in run.before.items():
        table.add_row(name, _figure(before), _figure(run.after[name]))
    console.print(table)
    for when, examples in (("before", run.examples_before), ("after", run.examples_after)):
        console.print(f"written {when}, each token on the colour of its reward:")
        for episode, release in examples:
            console.print("  ", token_heatmap(episode, release, run.tokenizer))
    console.print(f"run folder: {run.folder}", highlight=False)


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
