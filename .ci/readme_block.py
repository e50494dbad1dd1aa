"""Print the fenced block of README.md that follows the line ``<!-- ci: NAME -->``."""

import re
import sys
from pathlib import Path

name = sys.argv[1]
readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
match = re.search(rf"<!-- ci: {re.escape(name)} -->\n```bash\n(.*?)```", readme, re.DOTALL)
if match is None:
    sys.exit(f"README.md has no bash block after '<!-- ci: {name} -->'")
print(match.group(1), end="")
