"""The Python blocks of README and docs run as they are printed, and print what their last comment says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("ENVIRONMENT", "LIBRARIES", "DATA", "TASKS", "CREDIT", "SUITE"))]
BLOCKS = [
    (page, number, block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL))
]


def bare(text):
    """Leave out what differs between ways to print an array."""
    return re.sub(r"[\s,\[\]]|\.(?!\d|\w)", "", text)


@pytest.mark.parametrize(("page", "number", "block"), BLOCKS, ids=[f"{page}-{number}" for page, number, _ in BLOCKS])
def test_blocks_run_and_print_what_they_say(page, number, block, tmp_path):
    if "\nfrom ray" in block:
        pytest.importorskip("ray")
    script = tmp_path / "block.py"
    script.write_text(block)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = re.search(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    if said:
        assert bare(done.stdout) == bare(said[1])


def test_the_answer_takes_15_lines_and_a_task_20():
    lines = [[line for line in block.splitlines() if line.strip()] for page, _, block in BLOCKS if page == "README.md"]
    assert len(lines[0]) <= 15
    assert len(next(block for block in lines if any("class " in line for line in block))) <= 20
