"""The README's Python blocks run as they are printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks_run(number, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[number])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if number == 0:
        assert done.stdout.strip() == "0.0 [ 1.  0. -1.  0.] [0 0 1 0]"


def test_the_answer_takes_15_lines_and_a_task_20():
    lines = [[line for line in block.splitlines() if line.strip()] for block in BLOCKS]
    assert len(lines[0]) <= 15
    assert len(next(block for block in lines if any("class " in line for line in block))) <= 20
