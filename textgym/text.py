"""One text while it grows: prompt, response, replies; what the single environment holds.

Left out on purpose: rewards, and many texts at once, which ``store`` keeps without Python per text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from textgym.action_masks import ALL
from textgym.episode import Episode, Prompt
from textgym.rules import EOS, NO_TOKEN, RUNNING, TURN_ENDS, Rules
from textgym.store import Limits

_ONLY = np.zeros(1, dtype=np.int64)  # the one slot there is


class Text:
    """A prompt and the response so far, int64 (context_length,), right-padded with -1.

    Args:
        rules: what ends it, and who replies.
        prompt: what it starts from, with ids.
        episode_id: its number.
    """

    def __init__(self, rules: Rules, prompt: Prompt, episode_id: int) -> None:
        self.rules = rules
        self.prompt = prompt
        self.episode_id = episode_id
        self.tokens = np.full(rules.context_length, NO_TOKEN, dtype=np.int64)
        ids = np.asarray(prompt.ids)
        self._start = len(ids)
        self.tokens[: self._start] = ids
        self.length = self._start
        self._limits = Limits(rules, 1)
        self._limits.start(_ONLY, np.array([self._start]))
        self._replies: list[tuple[int, int]] = []  # ranges of response tokens that the environment wrote
        self.mask_number = ALL
        """Which of the task's action masks holds now, see ``MaskTable``."""
        self._ask_mask()

    def write(self, token: int) -> int:
        """Append a token of the agent, and the reply where that ends a turn.

        Returns:
            RUNNING, or the code of what ended the text.
        """
        self.tokens[self.length] = token
        self.length += 1
        code = self._write(token)
        self.mask_number = ALL
        if code == RUNNING:
            self._ask_mask()
        return code

    def _write(self, token: int) -> int:
        code = self._code(token)
        if not self.rules.has_turns or code not in TURN_ENDS:
            return code
        code, ids = self.rules.after(self.episode(code), code)
        if code == RUNNING:
            start = self.length - self._start
            self._replies.append((start, start + len(ids)))
            self.tokens[self.length : self.length + len(ids)] = ids
            self.length += len(ids)
            self._limits.reply(0, len(ids), self.length)
        return code

    def episode(self, code: int) -> Episode:
        """Give the response so far as an episode that ended by ``code`` (RUNNING: it has not ended)."""
        return self.rules.episode(self.prompt, self._response(), code, self.episode_id, self._replies)

    def _code(self, token: int) -> int:
        rules = self.rules
        if token == rules.eos_token_id:
            return EOS
        if rules.stop_table is not None and rules.stop_table[token]:
            code = rules.ending(self.prompt, self._response(), self._replies)
            if code != RUNNING:
                return code
        return int(self._limits.codes(np.array([self.length]))[0])

    def _ask_mask(self) -> None:
        if self.rules.masks is not None:
            self.mask_number = int(self.rules.masks.numbers([self.prompt], [self._response()], [self.episode_id])[0])

    def _response(self) -> npt.NDArray[np.int64]:
        return self.tokens[self._start : self.length].copy()
