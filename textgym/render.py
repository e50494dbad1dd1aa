"""What ``render`` gives: the text so far as a string, as a picture, or in the terminal while it grows.

Left out on purpose: drawing, which is ``view``'s. Views need packages that an environment without a render mode never loads
(rich, Pillow), so they are found by name when one is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textgym.episode import Episode, Release
from textgym.names import resolve_name
from textgym.tokenizer import TextTokenizer

_VIEWS = {
    "ansi": "textgym.view.terminal:ansi_frame",
    "rgb_array": "textgym.view.image:image_frame",
    "human": "textgym.view.terminal:TerminalView",
}
RENDER_MODES = tuple(_VIEWS)
RENDER_FPS = 10


class Renderer:
    """Draws one text after the other in one render mode.

    Args:
        mode: None (nothing is ever drawn) or one of ``allowed``.
        tokenizer: names the special tokens.
        allowed: modes of the door that asks.

    Raises:
        ValueError: there is no such mode here.
        ImportError: the mode's package is not installed; says how to get it.
    """

    def __init__(self, mode: str | None, tokenizer: TextTokenizer, allowed: Sequence[str] = RENDER_MODES) -> None:
        if mode is not None and mode not in allowed:
            raise ValueError(f"render_mode is {mode!r}; allowed are None, {', '.join(map(repr, allowed))}")
        self.mode = mode
        self._tokenizer = tokenizer
        self._view: Any = None if mode is None else resolve_name(_VIEWS[mode])
        if mode == "human":
            self._view = self._view(tokenizer)

    def draw(self, episode: Episode, release: Release | None) -> Any:
        """Draw a text, with its rewards once they are released: str, uint8 (height, width, 3), or None in the terminal."""
        if self._view is None:
            return None
        if self.mode == "human":
            return self._view.show(episode, release)
        return self._view(episode, release, self._tokenizer)

    def close(self) -> None:
        """Leave the terminal as it is."""
        if self.mode == "human" and self._view is not None:
            self._view.close()
