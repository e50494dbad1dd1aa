"""``textgym train | bench | check | tasks``: options from dataclasses, a progress bar, tables.

Left out on purpose: anything a script could not do; every command is one function call.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from transformers.utils import logging as transformers_logging

from textgym import resolve_name
from textgym.checks import report_task
from textgym.suite.catalogue import GROUPS
from textgym.tasks import DEFAULT_TASK, TASKS
from textgym.view.terminal import token_heatmap
from textgym_agents.bench.env_step import EnvBenchConfig, bench_env, bench_late
from textgym_agents.bench.report import show_ratio, show_value
from textgym_agents.bench.speed import SpeedConfig, speed
from textgym_agents.presets import preset
from textgym_agents.suite import SuiteConfig
from textgym_agents.suite_console import Finding, FromFile, Probes, Standard, Tiny, list_suites, run_suite
from textgym_agents.train import JSON, Reporter, Run, TrainConfig, train

_NONE: dict[str, Any] = {}
_LIVE = ("loss", "score", "success", "first", "second")


def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    sys.path.insert(0, os.getcwd())  # "module:Name" finds the user's own files, as `python -m` would
    transformers_logging.disable_progress_bar()  # ours is the only bar
    args = sys.argv[1:] if args is None else args
    command = tyro.extras.SubcommandApp()
    command.command(name="check")(_check)
    command.command(name="tasks")(_tasks)
    command.command(name="bench")(_bench)
    try:
        if args == ["bench"]:
            list_suites(Console())
            return
        defaults = preset(_given(args, "--task", DEFAULT_TASK), agent=_given(args, "--agent", "ppo"))
        command.command(name="train")(_train_from(defaults))
        command.cli(prog="textgym", description="Learn from rewards given to parts of a generated text.", args=args)
    except (ValueError, TypeError) as error:
        if os.environ.get("TEXTGYM_TRACEBACK"):
            raise
        said = "\n".join([f"error: {error}", *getattr(error, "__notes__", [])])
        Console(stderr=True).print(said, "(TEXTGYM_TRACEBACK=1 shows where)", markup=False, highlight=False)
        sys.exit(2)


def _given(args: Sequence[str], option: str, default: str) -> str:
    """Read an option out of the arguments before they are parsed: it decides what the defaults of others are."""
    split = [part for arg in args for part in (arg.split("=", 1) if arg.startswith(f"{option}=") else [arg])]
    given = [value for name, value in pairwise(split) if name == option]
    return given[-1] if given else default


def _train_from(defaults: TrainConfig) -> Callable[[TrainConfig], None]:
    """Make the command ``train``; an option that is not given is as in ``defaults``, and ``--help`` shows those."""

    def command(config: tyro.conf.OmitArgPrefixes[TrainConfig] = defaults) -> None:
        """Train an agent on a task; with no options, PPO on the number duel, in about a minute on two CPU cores.

        The defaults are those of the task that is named; --task NAME --help shows them.
        """
        _train(config)

    return command


def _train(config: TrainConfig) -> None:
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


def _check(
    task: Annotated[str, tyro.conf.Positional], episodes: int = 64, task_args: Annotated[dict[str, Any], JSON] = _NONE
) -> None:
    """Check that a task keeps the contract, and show where the rewards of its texts go.

    Args:
        task: environment id, short name or "module:Name".
        episodes: random texts to play; demonstrations come on top.
        task_args: arguments of the task's constructor, as a JSON object.
    """
    report = report_task(task, episodes=episodes, **task_args)
    console = Console()
    table = Table("check", "", "what is wrong, and what to do", title=task)
    for finding in report.findings:
        table.add_row(finding.name, "[green]ok[/]" if finding.fault is None else "[red]fails[/]", escape(finding.fault or ""))
    console.print(table)
    if {"construction", "episodes", "rewards"} & {finding.name for finding in report.faults}:
        sys.exit(1)  # nothing was paid, so there is no ledger
    ledger = Table("account", "mean of a text", title=f"ledger of {report.episodes} texts")
    ledger.add_row("asked for", f"{report.ledger.asked:+.5f}")
    for name, amount in report.ledger.accounts.items():
        ledger.add_row(f"taken by {escape(name)}", f"{-amount:+.5f}")
    ledger.add_row("paid", f"{report.paid:+.5f}")
    console.print(ledger)
    if report.faults:
        sys.exit(1)


def _bench(
    load: tyro.conf.OmitArgPrefixes[
        Annotated[Tiny, tyro.conf.subcommand("tiny", description=GROUPS["tiny"].about)]
        | Annotated[Standard, tyro.conf.subcommand("standard", description=GROUPS["standard"].about)]
        | Annotated[Finding, tyro.conf.subcommand("finding", description=GROUPS["finding"].about)]
        | Annotated[Probes, tyro.conf.subcommand("probes", description=GROUPS["probes"].about)]
        | Annotated[FromFile, tyro.conf.subcommand("run", description="settings of your own, from a file")]
        | Annotated[SpeedConfig, tyro.conf.subcommand("speed", description="rollout, update and whole step against others")]
        | Annotated[EnvBenchConfig, tyro.conf.subcommand("env", description="an environment's step, and late rewards")]
    ],
) -> None:
    """Measure: how agents learn under each form of reward, and how fast things are."""
    console = Console()
    if isinstance(load, SuiteConfig):
        run_suite(load, console)
        return
    if isinstance(load, EnvBenchConfig):
        table = Table("what", "microseconds", "", title=load.describe())
        for figure in [*bench_env(load), *bench_late(load)]:
            table.add_row(figure.name, f"{figure.microseconds:,.0f}", figure.note)
        console.print(table)
        return
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        console.print("set OMP_WAIT_POLICY=PASSIVE: spinning threads distort timings on shared cores", style="yellow")
    rows = speed(load, lambda part: console.print(f"measuring: {part}", style="dim"))
    for part, setting in dict.fromkeys((row.part, row.setting) for row in rows):
        shown = [row for row in rows if (row.part, row.setting) == (part, setting)]
        table = Table(part, shown[0].unit, "ratio", "", title=setting)
        for row in shown:
            table.add_row(row.name, show_value(row), show_ratio(row), escape(row.note))
        console.print(table)
    console.print(f"written to {load.out}", highlight=False)


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
            console.print("  ", Text(episode.prompt.text, style="dim"), token_heatmap(episode, release, run.tokenizer))
    console.print(f"run folder: {run.folder}", highlight=False)


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
