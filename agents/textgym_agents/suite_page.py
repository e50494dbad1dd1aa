"""The page of a suite: one HTML file with tables, figures and settings, that needs nothing beside it.

Left out on purpose: scripts, and anything that is loaded from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from textgym.suite.journal import Row
from textgym.suite.setting import Group
from textgym.suite.summary import Table, failed

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
.failed { background: #fbe9e7; padding: .5rem .8rem; }
pre { font-size: 12px; white-space: pre-wrap; }
"""


def write_page(path: Path, group: Group, rows: Sequence[Row], tables: Sequence[Table], figures: Sequence[Path]) -> None:
    """Write the page.

    Args:
        path: of the page.
        group: what was run.
        rows: of its runs.
        tables: what they come to.
        figures: SVG files, which are put into the page.
    """
    failures = len(failed(rows))
    parts = [f"<h1>{escape(group.name)}</h1>", f"<p>{escape(group.about)}. {len(rows)} runs, {group.seeds} seeds.</p>"]
    if failures:
        parts.append(f'<p class="failed">{failures} runs failed; they are in no table of scores.</p>')
    parts += [f"<figure>{_inner(figure.read_text(encoding='utf-8'))}</figure>" for figure in figures]
    parts += [_table(table) for table in tables]
    warned = sorted({warning for row in rows for warning in row.get("warnings", [])})
    if warned:
        parts.append("<h2>warnings of the runs</h2><ul>" + "".join(f"<li>{escape(each)}</li>" for each in warned) + "</ul>")
    shown = {row["key"]: row["setting"] for row in rows}
    lines = [f"{key}  {json.dumps(setting)}" for key, setting in shown.items()]
    parts.append(f"<details><summary>settings</summary><pre>{escape(chr(10).join(lines))}</pre></details>")
    used = sorted({json.dumps(row["versions"]) for row in rows})
    parts.append(f"<details><summary>versions</summary><pre>{escape(chr(10).join(used))}</pre></details>")
    head = f'<meta charset="utf-8"><title>{escape(group.name)}</title><style>{_STYLE}</style>'
    path.write_text(f"<!DOCTYPE html>\n<html><head>{head}</head><body>{''.join(parts)}</body></html>\n", encoding="utf-8")


def _inner(svg: str) -> str:
    """Leave out what only a file of its own has before its root element."""
    return svg[svg.index("<svg") :]


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<h2>{escape(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
