"""The benchmark suite: runs what is missing, one row each, and says what the rows come to. ``textgym bench NAME``.

Left out on purpose: what a run does (``suite_run``), and going on within one: a run that was cut off is done again whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from textgym.suite.catalogue import GROUPS
from textgym.suite.group_file import read_group
from textgym.suite.journal import Journal, Row, read_rows
from textgym.suite.setting import Group, Setting
from textgym.suite.summary import Table, failed, tables
from textgym_agents.suite_run import Job, check, run, versions
from textgym_agents.workers import Failure, in_processes

Hear = Callable[[str], Any]


@dataclass(frozen=True)
class SuiteConfig:
    """A suite and how it is run; every field is an option of ``textgym bench tiny | standard | finding | probes | run``."""

    task: tuple[str, ...] = ()
    """Run these tasks in the place of the group's: environment ids, short names or "module:Name". One that the group does not
    have gets the blocks of its first task."""
    reward: tuple[str, ...] = ()
    """Run these reward forms and assigners in the place of the group's: scalar, dense, streams, sequential, an assigner's short
    name, or "module:Name"."""
    agent: tuple[str, ...] = ()
    """Run these agents in the place of the group's: short names or "module:Name"."""
    seeds: int | None = None
    """Number of seeds; None: the group's."""
    episodes: int | None = None
    """Budget of each run; None: the group's."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes side by side, of one thread each."""
    out: Path | None = None
    """Folder of rows, tables, figures and page; default: runs/bench-<group>. Rows that it holds are not run again."""
    retry: bool = False
    """Run again what has failed."""
    plot: bool = True
    """Draw the figures (needs matplotlib)."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; it must be at least 1")


@dataclass(frozen=True)
class Report:
    """What a suite came to."""

    folder: Path
    """Holds rows.jsonl, tables.md, page.html and figures/."""
    rows: list[Row]
    """One per run, in the order of the group."""
    tables: list[Table]
    """What they come to."""
    page: Path | None
    """The page, where figures were drawn."""


def suite(group: Group | str | Path, config: SuiteConfig | None = None, hear: Hear = print) -> Report:
    """Run what is missing of a group, and report on all of it.

    Args:
        group: a name of ``textgym.suite.catalogue.GROUPS``, a file (``read_group``), or a ``Group``.
        config: what differs from the group, and how it is run.
        hear: told a line for each run.

    Raises:
        ValueError: a setting names what is not there; before anything is run. A run that fails is a row with its error.
    """
    config = config or SuiteConfig()
    if config.plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the figures need matplotlib: pip install 'textgym[plot]', or --no-plot")
    group = find_group(group).narrowed(config.task, config.reward, config.agent, config.seeds, config.episodes)
    for setting in group.settings():
        check(setting)
    folder = config.out or Path("runs") / f"bench-{group.name}"
    with Journal(folder / "rows.jsonl") as journal:
        _run_missing(group, config, folder, journal, hear)
    wanted = {(setting.key, seed): number for number, (setting, seed) in enumerate(group.runs())}
    rows = [row for row in read_rows(folder / "rows.jsonl") if (row["key"], row["seed"]) in wanted]
    rows.sort(key=lambda row: wanted[row["key"], row["seed"]])
    return _report(group, rows, folder, config.plot)


def find_group(group: Group | str | Path) -> Group:
    """Find a group by its name, or read it from a file."""
    if isinstance(group, Group):
        return group
    return GROUPS[group] if isinstance(group, str) and group in GROUPS else read_group(group)


def _run_missing(group: Group, config: SuiteConfig, folder: Path, journal: Journal, hear: Hear) -> None:
    """Run what has no row; a row is written by this process alone, when its run has ended."""
    there = {(row["key"], row["seed"]) for row in read_rows(journal.path) if row["error"] is None or not config.retry}
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)  # what a kill left
    runs = list(group.runs())
    jobs = [Job(setting, seed, work) for setting, seed in runs if (setting.key, seed) not in there]
    hear(f"{group.name}: {len(runs)} runs, {len(runs) - len(jobs)} of them done already; rows in {journal.path}")
    common = {"group": group.name, "versions": versions()}
    for number, (job, result) in enumerate(in_processes(run, jobs, min(config.jobs, max(1, len(jobs)))), 1):
        row: Row = {"key": job.setting.key, "seed": job.seed, "setting": asdict(job.setting), **common, "error": None}
        if isinstance(result, Failure):
            row |= {"error": result.error, "traceback": result.traceback}
        else:
            row |= result
        journal.append(row)
        hear(f"{number}/{len(jobs)} {_say(job.setting)}, seed {job.seed}: {_outcome(row)}")
    shutil.rmtree(work, ignore_errors=True)


def _say(setting: Setting) -> str:
    return f"{setting.task_name}, {setting.contestant}"


def _outcome(row: Row) -> str:
    if row["error"] is not None:
        return f"FAILED: {row['error']}"
    if "credit" in row:
        return f"cosine {row['credit']['cosine']}"
    return f"score {row['before']['score']:.3f} -> {row['final']['score']:.3f}, {row['seconds']:.1f} s"


def _report(group: Group, rows: list[Row], folder: Path, plot: bool) -> Report:
    made = tables(rows)
    text = "\n\n".join([f"# {group.name}: {group.about}", *(table.markdown() for table in made)])
    (folder / "tables.md").write_text(text + "\n", encoding="utf-8")
    page = None
    if plot:
        figures = importlib.import_module("textgym_agents.suite_plot").draw(rows, folder / "figures")
        page = folder / "page.html"
        write_page = importlib.import_module("textgym_agents.suite_page").write_page
        write_page(page, group, rows, made, figures)
    return Report(folder, rows, made, page)


def say_failures(report: Report) -> str:
    """Say how many runs failed; empty where none did."""
    count = len(failed(report.rows))
    if not count:
        return ""
    return f"{count} of {len(report.rows)} runs FAILED and are in no table of scores; --retry runs them again"
