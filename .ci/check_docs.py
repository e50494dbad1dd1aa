"""Check the Markdown files: every relative link leads to a file, every ``textgym`` command named is one that exists."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {"train", "bench", "check", "tasks"}
faults = []
for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists():
            faults.append(f"{page.name}: link to {target}, which is not there")
    for command in re.findall(r"(?:^|`|&& )textgym ([a-z]+)", text, re.MULTILINE):
        if command not in COMMANDS:
            faults.append(f"{page.name}: names the command 'textgym {command}', which does not exist")
    for script in re.findall(r"python (examples/\S+\.py)", text):
        if not (ROOT / script).exists():
            faults.append(f"{page.name}: names {script}, which is not there")
print("\n".join(faults) or "docs: links and commands are there")
sys.exit(bool(faults))
