"""``textgym bench tiny | standard | finding | probes | run`` on the console: options, a line per run, tables.

Left out on purpose: running, which is ``suite``'s.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from textgym.suite.catalogue import GROUPS
from textgym_agents.suite import SuiteConfig, say_failures, suite


class Tiny(SuiteConfig):
    """The options of ``textgym bench tiny``."""


class Standard(SuiteConfig):
    """The options of ``textgym bench standard``."""


class Finding(SuiteConfig):
    """The options of ``textgym bench finding``."""


class Probes(SuiteConfig):
    """The options of ``textgym bench probes``."""


@dataclass(frozen=True, kw_only=True)
class FromFile(SuiteConfig):
    """The options of ``textgym bench run``."""

    settings: Annotated[Path, tyro.conf.Positional]
    """A TOML or JSON file; docs/SUITE.md shows one."""


def list_suites(console: Console) -> None:
    """Say what ``textgym bench`` can do."""
    table = Table("textgym bench ...", "what it measures", "runs", title="benchmarks")
    for name, group in GROUPS.items():
        table.add_row(name, group.about, str(len(group.settings()) * group.seeds))
    table.add_row("run FILE", "settings of your own, from a TOML or JSON file", "")
    table.add_row("env", "an environment's step, and late rewards", "")
    table.add_row("speed", "rollout, update and whole step against others", "")
    console.print(table)
    console.print("options: textgym bench tiny --help", highlight=False)


def run_suite(config: SuiteConfig, console: Console) -> None:
    """Run a suite, print its tables; exit with 1 where runs failed."""
    group = config.settings if isinstance(config, FromFile) else type(config).__name__.lower()
    report = suite(group, config, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    for table in report.tables:
        console.print(f"\n{table.markdown()}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nwritten to {report.page or report.folder}", markup=False, highlight=False, soft_wrap=True)
    if said := say_failures(report):
        console.print(said, markup=False, style="red")
        sys.exit(1)
