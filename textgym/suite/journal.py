"""The rows of a suite: JSON lines that a kill at any moment cannot break.

Left out on purpose: several writers. One process appends, and holds a lock while it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no POSIX system: nobody looks whether a second suite writes into the same file
    fcntl = None

Row = dict[str, Any]


class Journal:
    """Appends rows to a file; what a kill left of an unfinished row is cut off on entering.

    A row is one line, written in one call and forced to disk, so that after a kill at any moment the file holds whole rows
    and at most the beginning of one more.

    Args:
        path: of the file; made with its folders where it is not there.

    Raises:
        ValueError: another process is writing to it (on entering).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = -1

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends
            except OSError:
                os.close(self._file)
                raise ValueError(f"another suite is writing to {self.path}; wait for it, or give another --out") from None
        whole = self.path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._file, whole)
        return self

    def __exit__(self, *raised: Any) -> None:
        os.close(self._file)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            ValueError: it holds what JSON cannot, NaN too.
            OSError: not all of it could be written.
        """
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self.path} took only the beginning of a row; is the disk full?")
        os.fsync(self._file)


def read_rows(path: str | Path) -> list[Row]:
    """Read the whole rows of a file, in its order; none where there is no file.

    The beginning of a row at the end, which a kill leaves, is no row. Of several rows with the same key and seed (a run that
    failed and was done again) the last one counts.

    Raises:
        ValueError: a whole line is no row.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    rows: dict[tuple[str, int], Row] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.pop((row["key"], row["seed"]), None)
            rows[row["key"], row["seed"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of {path} is no row of a suite ({error!r}); mend it or remove it") from None
    return list(rows.values())
