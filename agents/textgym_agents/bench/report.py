"""The table of a speed run: rows measured by alternation, as JSON and as Markdown.

Left out on purpose: judgement. A row holds what each repeat measured; medians and ratios of the same repeat are all that is
made of it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from textgym_agents.bench.contestants import Contestant
from textgym_agents.processor import processor_name


@dataclass(frozen=True)
class Row:
    """One contestant's figures."""

    part: str
    """Which table it belongs to."""
    setting: str
    """What is the same for all rows that it is compared with."""
    name: str
    """Who."""
    unit: str
    """Of ``value``."""
    value: float | None
    """Median over the repeats; None: not run, ``note`` says why."""
    ratio: float | None = None
    """Against the reference: median of the repeats' ratios; the reference's is 1. None: not run, or compared with nobody."""
    repeats: tuple[float, ...] = ()
    """``value`` of each repeat."""
    slots: int | None = None
    """Texts side by side, where that is what a table varies."""
    note: str = ""
    """What else there is to say."""


def alternate(
    contestants: Mapping[str, Contestant], repeats: int, work: Mapping[str, float] | None = None, least_seconds: float = 0.0
) -> dict[str, tuple[float, ...]]:
    """Let all contestants run in turn, one round untimed and then ``repeats`` rounds. Returns each one's rates, per second.

    Args:
        contestants: by name; they are closed afterwards, whatever happens.
        repeats: timed rounds.
        work: by name, what each of its runs must have done; who is not named is not checked.
        least_seconds: in a timed round each runs again until its runs took as long: who is done in a second would else be
            compared in a good second or a bad one of a machine that others use too.

    Raises:
        RuntimeError: a contestant did other work than ``work``.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    try:
        for repeat in range(repeats + 1):
            for name, contestant in contestants.items():
                total = spent = 0.0
                while spent == 0.0 or (repeat and spent < least_seconds):
                    done, seconds = contestant.run()
                    if done != (work or {}).get(name, done):
                        raise RuntimeError(f"{name} did {done:g} of work where the load asks for {(work or {})[name]:g}")
                    total, spent = total + done, spent + seconds
                if repeat:
                    rates[name].append(total / spent)
    finally:
        for contestant in contestants.values():
            contestant.close()
    return {name: tuple(values) for name, values in rates.items()}


def compare(
    rates: Mapping[str, Sequence[float]],
    reference: str,
    *,
    part: str,
    setting: str,
    unit: str,
    slots: int | None = None,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Make a row of each contestant: the median rate, and the median over repeats of its ratio to the reference's."""
    rows = []
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[reference], strict=True))
        note = (notes or {}).get(name, "")
        rows.append(Row(part, setting, name, unit, statistics.median(values), ratio, tuple(values), slots, note))
    return rows


def write_report(folder: Path, rows: Sequence[Row], options: Mapping[str, Any]) -> None:
    """Write ``speed.json`` and ``speed.md`` into ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"options": options, "machine": describe_machine(), "rows": [asdict(row) for row in rows]}
    (folder / "speed.json").write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    (folder / "speed.md").write_text(markdown(rows, document["machine"]), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a ``speed.json``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**{**row, "repeats": tuple(row["repeats"])}) for row in document["rows"]]


def describe_machine() -> dict[str, str]:
    """Say on what and with what the run was made."""
    return {
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": str(torch.get_num_threads()),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
    }


def markdown(rows: Sequence[Row], machine: Mapping[str, str]) -> str:
    """Write the rows as Markdown tables, one for each part and setting."""
    lines = ["# Speed", "", ", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines += ["Median over the repeats (least to most); the ratio is the median of the repeats' ratios.", ""]
    for part, setting in dict.fromkeys((row.part, row.setting) for row in rows):
        table = [row for row in rows if (row.part, row.setting) == (part, setting)]
        lines += [f"## {part}: {setting}", "", f"| | {table[0].unit} | ratio | |", "|---|---|---|---|"]
        lines += [f"| {row.name} | {show_value(row)} | {show_ratio(row)} | {row.note} |" for row in table]
        lines.append("")
    return "\n".join(lines)


def show_value(row: Row) -> str:
    """Write a row's median, with the range of its repeats if there are several."""
    if row.value is None:
        return "not run"
    if len(row.repeats) < 2:
        return show_number(row.value)
    return f"{show_number(row.value)} ({show_number(min(row.repeats))} to {show_number(max(row.repeats))})"


def show_ratio(row: Row) -> str:
    """Write a row's ratio."""
    return "" if row.ratio is None else f"{row.ratio:.2f}"


def show_number(value: float) -> str:
    """Write a figure with as many places as are worth reading."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
