"""The plot of a speed run: rollouts as bars, the sweep over slots as lines, whole steps as bars.

Left out on purpose: parts that were not run. Needs matplotlib, which nothing else does: ``pip install 'textgym[plot]'``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from textgym_agents.bench.report import Row, show_number, show_ratio

OURS, OTHERS = "#1b6ca8", "#9aa3ab"


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw ``speed.png`` and ``speed.svg`` into ``folder``. Returns the paths; none if there is nothing to draw."""
    ran = [row for row in rows if row.value is not None]
    first = next((row.setting for row in ran if row.part == "rollout"), None)
    panels: list[tuple[Callable[[Axes, Sequence[Row]], None], list[Row]]] = [
        (_bars, [row for row in ran if row.part == "rollout" and row.setting == first]),
        (_lines, [row for row in ran if row.part == "sweep"]),
        (_bars, [row for row in ran if row.part == "step"]),
    ]
    panels = [(paint, shown) for paint, shown in panels if shown]
    if not panels:
        return []
    heights = [4.0 if paint is _lines else 0.8 + 0.45 * len(shown) for paint, shown in panels]
    figure = Figure(figsize=(8.0, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for index, (paint, shown) in enumerate(panels):
        paint(figure.add_subplot(grid[index]), shown)
    paths = [folder / "speed.png", folder / "speed.svg"]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    names = [_broken(row.name) for row in rows]
    values = [row.value or 0.0 for row in rows]
    colours = [OURS if row.name.startswith("textgym") else OTHERS for row in rows]
    bars = axes.barh(names, values, color=colours)
    labels = axes.bar_label(bars, [f" {show_number(row.value or 0.0)} ({show_ratio(row)}x)" for row in rows])
    for label in labels:
        label.set_in_layout(False)  # its place follows the axes' width: a long one had the layout squeeze them to nothing
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * max(values))
    axes.set_xlabel(rows[0].unit)
    axes.set_title({"rollout": "rollout", "step": "whole step"}[rows[0].part])
    axes.spines[["top", "right"]].set_visible(False)


def _broken(name: str) -> str:
    """Break a long name into lines: in one they leave the axes no width."""
    return name.replace(" (", "\n(").replace(", cache", ",\ncache")


def _lines(axes: Axes, rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(row.name for row in rows):
        line = [row for row in rows if row.name == name]
        style = "o-" if name.startswith("textgym") else "s--"
        axes.plot([row.slots or 0 for row in line], [row.value or 0.0 for row in line], style, label=_broken(name))
    ticks = sorted({row.slots or 0 for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(slots) for slots in ticks])
    axes.set_xlabel("slots")
    axes.set_ylabel(rows[0].unit)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    axes.set_title("rollout by slots")
    axes.spines[["top", "right"]].set_visible(False)
