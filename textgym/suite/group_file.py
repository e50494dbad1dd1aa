"""A group of settings from a file of the user's: TOML or JSON.

Left out on purpose: defaults of tasks. What a file does not say is as in ``textgym train``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from textgym.suite.setting import Block, Group


def read_group(path: str | Path) -> Group:
    """Read a group.

    The file holds ``seeds``, ``blocks`` (a list of tables with the fields of ``Block``), and may hold ``name`` (default: the
    file's) and ``about``.

    Raises:
        ValueError: there is no such file, it is no TOML or JSON, or it says something else than the above.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no settings file {path}; docs/SUITE.md shows one")
    text = path.read_text(encoding="utf-8")
    try:
        said: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is no {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from None
    if not isinstance(said, dict):
        raise ValueError(f"{path} holds a {type(said).__name__}; it shall be a table with seeds and blocks")
    said = {"name": path.stem, "about": f"the settings of {path.name}"} | said
    if not isinstance(said.get("blocks"), list) or not all(isinstance(block, dict) for block in said["blocks"]):
        raise ValueError(f"{path} has no list of blocks; give [[blocks]] with task, rewards, agents and episodes")
    tables: list[dict[str, Any]] = said["blocks"]
    blocks = [_make(Block, block, f"block {number} of {path}") for number, block in enumerate(tables)]
    return _make(Group, said | {"blocks": tuple(blocks)}, str(path))


def _make(kind: Any, said: Mapping[str, Any], where: str) -> Any:
    known = [each.name for each in fields(kind)]
    needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    if unknown := sorted({*said} - {*known}):
        raise ValueError(f"{where} says {', '.join(unknown)}; it may say {', '.join(known)}")
    if missing := [name for name in needed if name not in said]:
        raise ValueError(f"{where} does not say {', '.join(missing)}")
    for name in ("seeds", "episodes"):
        if name in said and (not isinstance(said[name], int) or isinstance(said[name], bool)):
            raise ValueError(f"{where} says {name} = {said[name]!r}; it is a whole number")
    return kind(**said)
