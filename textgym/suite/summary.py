"""What a suite's rows come to: tables, at equal tokens, with the number of reward calls beside every score.

Left out on purpose: markup. A table is names and strings; the console, Markdown and the page print the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from textgym.suite.curves import at_tokens, equal_tokens
from textgym.suite.journal import Row
from textgym.suite.setting import Setting
from textgym.suite.statistics import Estimate, estimate_improvement, estimate_iqm

BASELINE = "scalar"
"""The reward form that others are compared with."""
CREDIT_FIGURES = ("cosine", "sign_accuracy", "rank_correlation", "variance", "reward_calls")


@dataclass(frozen=True)
class Table:
    """A table in print."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Write it as Markdown."""
        lines = [f"**{self.title}**", "", f"| {' | '.join(self.columns)} |", "|---" * len(self.columns) + "|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)])


def setting_of(row: Row) -> Setting:
    """Read a row's setting."""
    return Setting(**row["setting"])


def learned(rows: Iterable[Row]) -> list[Row]:
    """Keep the runs that learned, and ended."""
    return [row for row in rows if row.get("curve")]


def failed(rows: Iterable[Row]) -> list[Row]:
    """Keep the runs that failed."""
    return [row for row in rows if row["error"] is not None]


def by_task(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Sort runs that learned: task -> contestant -> its runs, ordered by seed."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in sorted(learned(rows), key=lambda row: row["seed"]):
        setting = setting_of(row)
        found.setdefault(setting.task_name, {}).setdefault(setting.contestant, []).append(row)
    return found


def tables(rows: Sequence[Row]) -> list[Table]:
    """Make all tables that the rows have something for."""
    made = [_of_task(task, contestants) for task, contestants in by_task(rows).items()]
    made += [_against_baseline(rows), *_of_credit(rows), _of_failures(rows)]
    return [table for table in made if table.rows]


def _of_task(task: str, contestants: dict[str, list[Row]]) -> Table:
    every = [row for rows in contestants.values() for row in rows]
    tokens = equal_tokens(every)
    columns = (
        "agent, reward",
        "runs",
        f"score at {tokens:,} tokens",
        "reward calls until there",
        "score at the end",
        "tokens at the end",
        "seconds",
    )
    lines = []
    for name, rows in contestants.items():
        final = estimate_iqm([[row["final"]["score"] for row in rows]])
        lines.append(
            (
                name,
                str(len(rows)),
                _show(estimate_iqm([_scores(rows, tokens)])),
                f"{np.mean([at_tokens(row, 'reward_calls', tokens) for row in rows]):,.0f}",
                _show(final),
                f"{np.mean([row['curve']['tokens'][-1] for row in rows]):,.0f}",
                f"{np.mean([row['seconds'] for row in rows]):.1f}",
            )
        )
    return Table(f"{task}: interquartile mean [95 % interval]", columns, tuple(lines))


def _against_baseline(rows: Sequence[Row]) -> Table:
    """Compare each reward with the scalar one: the same agent, on the tasks that both have."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for task, contestants in by_task(rows).items():
        tokens = equal_tokens([row for each in contestants.values() for row in each])
        for each in contestants.values():
            setting = setting_of(each[0])
            agent = setting.contestant.removesuffix(f", {setting.reward}")
            scores.setdefault((agent, setting.reward), {})[task] = _scores(each, tokens)
    lines = []
    for (agent, reward), ours in scores.items():
        theirs = scores.get((agent, BASELINE), {})
        shared = [task for task in ours if task in theirs]
        if reward == BASELINE or not shared:
            continue
        pair = [ours[task] for task in shared], [theirs[task] for task in shared]
        better = estimate_improvement(*pair)
        lines.append((agent, reward, str(len(shared)), *(_show(estimate_iqm(each)) for each in pair), _show(better)))
    columns = ("agent", "reward", "tasks", "score", f"score of {BASELINE}", f"probability of improvement on {BASELINE}")
    title = f"each reward against {BASELINE}: same agent, same tasks, equal tokens; interquartile mean [95 % interval]"
    return Table(title, columns, tuple(lines))


def _of_credit(rows: Sequence[Row]) -> list[Table]:
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row.get("credit"):
            setting = setting_of(row)
            found.setdefault(setting.reward, {}).setdefault(setting.task_name, []).append(row)
    tasks = tuple(dict.fromkeys(task for each in found.values() for task in each))
    made = []
    for figure in CREDIT_FIGURES:
        lines = []
        for reward, each in found.items():
            values = [[row["credit"][figure] for row in each.get(task, [])] for task in tasks]
            lines.append((reward, *(_mean(column) for column in values)))
        title = f"credit: {figure.replace('_', ' ')}, mean over {_policies(found)}"
        made.append(Table(title, ("assigner", *tasks), tuple(lines)))
    return made


def _policies(found: dict[str, dict[str, list[Row]]]) -> str:
    most = max((len(rows) for each in found.values() for rows in each.values()), default=0)
    return "1 random policy" if most == 1 else f"{most} random policies"


def _mean(values: Sequence[float | None]) -> str:
    """Show a mean; figures that are not defined for some policy have none."""
    if not values:
        return "-"
    return "none" if any(value is None for value in values) else f"{np.mean(np.array(values, dtype=np.float64)):.2f}"


def _of_failures(rows: Sequence[Row]) -> Table:
    lines = []
    for row in failed(rows):
        setting = setting_of(row)
        lines.append((setting.task_name, setting.contestant, str(row["seed"]), str(row["error"]).replace("\n", " ")))
    return Table("runs that failed: they are in no other table", ("task", "agent, reward", "seed", "error"), tuple(lines))


def _scores(rows: Sequence[Row], tokens: int) -> list[float]:
    return [float(at_tokens(row, "score", tokens)) for row in rows]


def _show(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "none"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
