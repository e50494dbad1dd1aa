"""An episode in the terminal: each token on the colour of its reward, as one line, as a frame, or as it grows.

Left out on purpose: layout of many episodes; a caller prints as many as it likes. Also threads, a hidden cursor and
captured streams (``rich.live``): an environment that is never closed must leave the terminal as it found it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from textgym.episode import Episode, Release
from textgym.tokenizer import TextTokenizer
from textgym.view.cells import Cell, cells, summary

# A model may write any character; those that a terminal obeys (escape above all) are shown instead.
_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡"} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
_MARKS = _CONTROLS | {ord("\n"): "⏎", ord("\t"): "⇥"}
_BREAKS = _MARKS | {ord("\n"): "⏎\n"}
_NARROWEST = 10


def token_heatmap(episode: Episode, release: Release | None, tokenizer: TextTokenizer) -> Text:
    """Write the response token by token: green for reward, red for penalty, dim where the environment wrote.

    Tokens are shown as they were sampled, special ones included, line breaks as marks; the numbers behind rewarded tokens
    are their rewards. Without a release (the text is still growing) nothing is coloured.
    """
    line = Text()
    _append(line, cells(episode, release, tokenizer), _MARKS)
    return line


def ansi_frame(episode: Episode, release: Release | None, tokenizer: TextTokenizer, width: int = 100) -> str:
    """Write prompt (dim) and response as lines with ANSI escape codes, no newline at the end.

    Once released, a last line says the return, the sum of each stream where there are several, and the criteria.

    Args:
        episode: the finished episode, or the text so far.
        release: its release; None while the text is still growing.
        tokenizer: the tokenizer that the episode was written with.
        width: longest line, in terminal columns.

    Raises:
        ValueError: the width is too small, or the release is of another episode.
    """
    if width < _NARROWEST:
        raise ValueError(f"width is {width}; allowed are {_NARROWEST} terminal columns or more; give a larger width")
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        force_jupyter=False,
        legacy_windows=False,
        color_system="truecolor",
        no_color=False,
    )
    return _frame(console, episode, release, tokenizer)


class TerminalView:
    """Shows one text after another on a stream, growing in place where the stream is a terminal.

    Elsewhere (a log, a pipe, a notebook) a frame per token would be noise, so an episode is written once, when released.

    Args:
        tokenizer: the tokenizer that the episodes are written with.
        stream: where to write; default: ``sys.stdout``, as it is when something is shown.
    """

    def __init__(self, tokenizer: TextTokenizer, stream: TextIO | None = None) -> None:
        self._tokenizer = tokenizer
        self._console = Console(file=stream, force_jupyter=False)
        self._drawn = 0  # lines of a growing text that stand above the cursor
        self._finished: int | None = None

    def show(self, episode: Episode, release: Release | None) -> None:
        """Show the text so far (``release`` is None), or the released episode; the latter once.

        A growing text that is taller than the terminal shows its newest lines; released, it is written in full.
        """
        if release is not None and release.episode_id == self._finished:
            return
        self._finished = None if release is None else release.episode_id
        if release is None and not self._redraws():
            return
        lines = _frame(self._console, episode, release, self._tokenizer).split("\n")
        if release is None:
            lines = self._newest(lines)
        erase = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        self._write(erase + "\n".join(lines) + "\n")
        self._drawn = len(lines) if release is None else 0

    def close(self) -> None:
        """Let go of what is drawn; it stays on the stream, which is the caller's to close."""
        self._drawn = 0

    def _redraws(self) -> bool:
        # Not rich's is_terminal: FORCE_COLOR makes that true, and CI logs set it.
        return self._console.file.isatty() and not self._console.is_dumb_terminal and not self._console.legacy_windows

    def _newest(self, lines: list[str]) -> list[str]:
        """Keep what fits above the cursor's own line: what has scrolled away cannot be redrawn."""
        room = max(2, self._console.height - 1)
        if len(lines) <= room:
            return lines
        mark = f"… earlier lines hidden: {len(lines) - room + 1}"
        return [mark[: self._console.width], *lines[1 - room :]]

    def _write(self, text: str) -> None:
        file = self._console.file
        encoding = getattr(file, "encoding", None) or "utf-8"  # StringIO has none
        file.write(text.encode(encoding, "replace").decode(encoding))
        file.flush()


def _frame(console: Console, episode: Episode, release: Release | None, tokenizer: TextTokenizer) -> str:
    """Render prompt, response and, once released, the line of totals; lines are wrapped by ``console``."""
    shown = cells(episode, release, tokenizer)
    text = Text()
    text.append(episode.prompt.text.translate(_BREAKS), style="dim")
    _append(text, shown, _BREAKS)
    if release is not None:
        if text and not text.plain.endswith("\n"):
            text.append("\n")
        text.append(f"episode {release.episode_id}: ", style="dim")
        text.append(summary(shown, release.criteria), style="bold")
    with console.capture() as captured:
        console.print(text, end="")
    return captured.get()


def _append(text: Text, shown: Sequence[Cell], marks: Mapping[int, str]) -> None:
    """Append cells to ``text``; the stronger the shade, the nearer a reward is to the episode's largest."""
    largest = max((abs(cell.reward or 0.0) for cell in shown), default=0.0)
    for cell in shown:
        written = cell.text.translate(marks)
        if not cell.reward:
            text.append(written, style="" if cell.by_agent else "dim")
            continue
        shade = int(80 + 120 * abs(cell.reward) / largest)
        colour = f"rgb(0,{shade},0)" if cell.reward > 0 else f"rgb({shade},0,0)"
        token = written.rstrip("\n")
        text.append(token, style=f"bold white on {colour}")
        text.append(f"({cell.reward:+.3g})", style="green" if cell.reward > 0 else "red")
        text.append(written[len(token) :])
