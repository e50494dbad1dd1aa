"""The script runs in an environment of its own (see test_whole_step.py); here is what can be seen from outside it."""

import ast
from pathlib import Path

import textgym_agents.bench

SCRIPT = Path(textgym_agents.bench.__file__).with_name("trl_step.py")


def test_the_script_needs_nothing_of_textgym():
    found = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").partition(".")[0])
    assert not found & {"textgym", "textgym_agents"}
    assert {"trl", "torch", "transformers"} <= found
