"""What a suite's rows come to: tables, at equal tokens, with the number of reward calls beside every score.

Left out on purpose: markup. A table is names and strings; the console, Markdown and the page print the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from textgym.suite.curves import at_tokens, equal_tokens
from textgym.suite.journal import Row
from textgym.suite.reach import episodes_to_reach
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
        cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in self.rows]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


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
    """Sort runs that learned: task -> contestant -> its runs, ordered by seed.

    Where settings of one task have the same agent and reward, the later ones' names say in what they differ from the first.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    first: dict[tuple[str, str], Setting] = {}
    for row in learned(rows):
        setting = setting_of(row)
        task, name = setting.task_name, setting.contestant
        owner = first.setdefault((task, name), setting)
        if owner.key != setting.key:
            name = f"{name} ({_difference(setting, owner)})"
        found.setdefault(task, {}).setdefault(name, []).append(row)
    for contestants in found.values():
        for each in contestants.values():
            each.sort(key=lambda row: row["seed"])
    return found


def _difference(setting: Setting, other: Setting) -> str:
    ours, theirs = ({"episodes": each.episodes, **each.options, **each.agent_args} for each in (setting, other))
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name}={ours.get(name, 'default')}" for name in names)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Make all tables that the rows have something for."""
    made = [_of_task(task, contestants) for task, contestants in by_task(rows).items()]
    made += [_against_baseline(rows), _of_reach(rows), *_of_credit(rows), _of_failures(rows)]
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


@dataclass(frozen=True)
class Comparison:
    """A reward form or assigner against the baseline: the same agent, on the tasks that both have, at equal tokens."""

    agent: str
    reward: str
    tasks: int
    """How many both have."""
    score: Estimate
    """Interquartile mean over their runs."""
    baseline: Estimate
    """The same of the baseline's."""
    improvement: Estimate
    """Probability that a run is better than one of the baseline's, averaged over tasks."""


def comparisons(rows: Iterable[Row]) -> list[Comparison]:
    """Compare every reward with ``BASELINE``; an agent that has no run with that is left out."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for task, contestants in by_task(rows).items():
        tokens = equal_tokens([row for each in contestants.values() for row in each])
        for name, each in contestants.items():
            setting = setting_of(each[0])
            if name == setting.contestant:
                scores.setdefault((setting.agent, setting.reward), {})[task] = _scores(each, tokens)
    made = []
    for (agent, reward), ours in scores.items():
        theirs = scores.get((agent, BASELINE), {})
        shared = [task for task in ours if task in theirs]
        if reward != BASELINE and shared:
            pair = [ours[task] for task in shared], [theirs[task] for task in shared]
            score, baseline = (estimate_iqm(each) for each in pair)
            made.append(Comparison(agent, reward, len(shared), score, baseline, estimate_improvement(*pair)))
    return made


def _against_baseline(rows: Sequence[Row]) -> Table:
    columns = ("agent", "reward", "tasks", "score", f"score of {BASELINE}", f"probability of improvement on {BASELINE}")
    title = f"each reward against {BASELINE}: same agent, same tasks, equal tokens; interquartile mean [95 % interval]"
    lines = [
        (each.agent, each.reward, str(each.tasks), *map(_show, (each.score, each.baseline, each.improvement)))
        for each in comparisons(rows)
    ]
    return Table(title, columns, tuple(lines))


def _of_reach(rows: Sequence[Row]) -> Table:
    columns = ("task", "agent, reward", "episodes", f"share of {BASELINE}'s")
    lines = []
    for task, contestants in by_task(rows).items():
        for name, each in contestants.items():
            setting = setting_of(each[0])
            baseline = contestants.get(replace(setting, reward=BASELINE).contestant)
            if baseline is None or each[0]["curve"]["tokens"][-1] == 0:
                continue
            found, budget = episodes_to_reach(each, baseline), baseline[0]["curve"]["episodes"][-1]
            low, value, high = (
                f"{part:,.0f}" if math.isfinite(part) else "never" for part in (found.low, found.value, found.high)
            )
            share = f"{found.value / budget:.2f}" if math.isfinite(found.value) else "never"
            lines.append((task, name, f"{value} [{low}, {high}]", share))
    title = f"episodes until the interquartile mean first is {BASELINE}'s final one [95 % interval]"
    return Table(title, columns, tuple(lines))


def credits(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Sort rows of measured credit: assigner -> task -> its rows, one per policy."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row.get("credit"):
            setting = setting_of(row)
            found.setdefault(setting.reward, {}).setdefault(setting.task_name, []).append(row)
    return found


def mean_credit(rows: Iterable[Row], figure: str) -> float:
    """Give the mean of a figure over policies; NaN where there is none, or it is not defined for one of them."""
    values = [row["credit"][figure] for row in rows]
    return float(np.mean(values)) if values and None not in values else math.nan


def _of_credit(rows: Sequence[Row]) -> list[Table]:
    found = credits(rows)
    tasks = tuple(dict.fromkeys(task for each in found.values() for task in each))
    most = max((len(each) for of in found.values() for each in of.values()), default=0)
    made = []
    for figure in CREDIT_FIGURES:
        means = {reward: [mean_credit(of.get(task, []), figure) for task in tasks] for reward, of in found.items()}
        lines = [(reward, *("none" if math.isnan(mean) else f"{mean:.2f}" for mean in each)) for reward, each in means.items()]
        title = f"credit: {figure.replace('_', ' ')}, mean over random policies, at most {most}"
        made.append(Table(title, ("assigner", *tasks), tuple(lines)))
    return made


def _of_failures(rows: Sequence[Row]) -> Table:
    lines = []
    for row in failed(rows):
        setting = setting_of(row)
        lines.append((setting.task_name, setting.contestant, str(row["seed"]), str(row["error"])))
    return Table("runs that failed: they are in no other table", ("task", "agent, reward", "seed", "error"), tuple(lines))


def _scores(rows: Sequence[Row], tokens: int) -> list[float]:
    return [float(at_tokens(row, "score", tokens)) for row in rows]


def _show(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "none"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
