"""Figures of a suite: sample-efficiency curves per task, rewards against the baseline, credit as a grid.

Left out on purpose: figures that nothing was run for. Needs matplotlib, which nothing else does:
``pip install 'textgym[plot]'``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from textgym.suite.curves import band, equal_tokens
from textgym.suite.journal import Row
from textgym.suite.summary import BASELINE, Comparison, by_task, comparisons, credits, mean_credit

COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#e0a030", "#6b4c9a", "#00a5a5", "#8c564b", "#555555", "#b0b030", "#e377c2")
STYLES = ("-", "--", ":", "-.")


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw each figure as PNG and SVG. Returns the SVGs; figures of an earlier call are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.svg"), *folder.glob("*.png")]:
        old.unlink()
    paths = []
    for task, contestants in by_task(rows).items():
        tokens = equal_tokens([row for each in contestants.values() for row in each])
        if tokens:
            figure, axes = _figure(7.0, 4.2)
            _curves(axes, task, contestants, tokens)
            paths.append(_save(figure, folder, f"curves-{task}"))
    if compared := comparisons(rows):
        figure, axes = _figure(7.0, 1.2 + 0.35 * len(compared))
        _improvements(axes, compared)
        paths.append(_save(figure, folder, f"against-{BASELINE}"))
    if measured := credits(rows):
        figure, axes = _figure(7.0, 1.2 + 0.3 * len(measured))
        _credit(axes, measured)
        paths.append(_save(figure, folder, "credit"))
    return paths


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Figure, folder: Path, name: str) -> Path:
    """Write both files; the SVG's text stays text, and its inner names do not meet another figure's on a page."""
    path = folder / (re.sub(r"[^\w.-]+", "-", name).strip("-") + ".svg")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(path, metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=150)
    return path


def _curves(axes: Axes, task: str, contestants: dict[str, list[Row]], tokens: int) -> None:
    for number, (name, rows) in enumerate(contestants.items()):
        curve = band(rows, tokens)
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        label = f"{name} ({curve.reward_calls[-1]:,.0f} reward calls)"
        axes.plot(curve.tokens, curve.score, label=label, color=colour, linestyle=style)
        axes.fill_between(curve.tokens, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("tokens learned from")
    axes.set_ylabel("score, interquartile mean, 95 % interval")
    axes.set_ylim(-0.02, 1.02)
    axes.set_title(task)
    axes.legend(fontsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)


def _improvements(axes: Axes, compared: Sequence[Comparison]) -> None:
    names = [f"{each.agent}, {each.reward} ({each.tasks} task{'s' * (each.tasks > 1)})" for each in compared]
    values = np.array([each.improvement.value for each in compared])
    low = values - [each.improvement.low for each in compared]
    high = np.array([each.improvement.high for each in compared]) - values
    axes.errorbar(values, names, xerr=np.maximum([low, high], 0), fmt="o", color=COLOURS[0], capsize=3)
    axes.axvline(0.5, color="#999999", linewidth=0.8)
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.set_xlabel(f"probability that a run is better than one with {BASELINE}, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)


def _credit(axes: Axes, measured: dict[str, dict[str, list[Row]]]) -> None:
    tasks = list(dict.fromkeys(task for each in measured.values() for task in each))
    cosine = np.array([[mean_credit(of.get(task, []), "cosine") for task in tasks] for of in measured.values()])
    axes.imshow(np.ma.masked_invalid(cosine), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(cosine):
        shown = "none" if np.isnan(value) else f"{value:.2f}"
        colour = "white" if abs(value) > 0.6 else "black"
        axes.text(column, row, shown, ha="center", va="center", fontsize="x-small", color=colour)
    axes.set_xticks(range(len(tasks)), [task.removeprefix("probe_") for task in tasks], fontsize="small")
    axes.set_yticks(range(len(measured)), list(measured), fontsize="small")
    axes.set_title("cosine of the expected gradient to the exact one")
