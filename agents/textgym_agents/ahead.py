"""What a driver knows of the steps to come, so that a policy need not be asked for each of them.

Left out on purpose: guessing. As long as no text can be at a limit and none was answered or stopped, every text goes on with
the token that was sampled, or ends with it, so the next pass needs no word from the environment. Its answers to these steps,
and what a collection notes of them, then follow one another: on a CPU a pass of the model empties the caches, and whatever
Python does first after it takes many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST = 32
"""Steps that are sampled ahead at most: rewards that come late are handed out by the environment's steps."""


class Ahead(NamedTuple):
    """Up to where a policy may go on by itself, after the step that it is asked for."""

    left: npt.NDArray[np.int64]
    """(n,), how many tokens reach the limit of each text that is asked for: ``TextGenVectorEnv.tokens_left``."""
    ends_at_limit: bool
    """Whether a text at its limit has just ended; else only the environment knows what follows."""
    pausing: frozenset[int]
    """Tokens after which only the environment knows what follows: ``Rules.pausing_tokens``."""
    ending: int
    """The token that ends a text, where it is none of those."""
    texts: int
    """How many texts may end, at least 1: the step in which so many have is the last, as others may be started then."""


class Running:
    """Whose texts go on after each step, as far as that is known.

    Args:
        ahead: what the driver said.
    """

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._left = ahead.left.tolist()  # of those that go on, when the driver asked
        self._nearest = min(self._left)
        self._taken = 0
        self._texts = ahead.texts
        self.gone: Sequence[int] = ()
        """Whose texts ended with the last step that somebody goes on after: indices into its tokens."""

    def after(self, tokens: Sequence[int]) -> Sequence[int] | None:
        """Say who goes on after a step that wrote ``tokens``, one for each text that went on until then.

        Returns:
            Indices into ``tokens``; None where only the environment knows what follows.
        """
        ahead, self._taken = self._ahead, self._taken + 1
        at_limit = self._nearest == self._taken
        if not ahead.pausing.isdisjoint(tokens) or (at_limit and not ahead.ends_at_limit):
            return None
        if not at_limit and ahead.ending not in tokens:
            self.gone = ()
            return range(len(tokens))
        stay: list[int] = []
        gone: list[int] = []
        for i, (token, left) in enumerate(zip(tokens, self._left, strict=True)):
            (gone if token == ahead.ending or left == self._taken else stay).append(i)
        self._texts -= len(gone)
        if self._texts <= 0 or not stay:
            return None
        self.gone, self._left = gone, [self._left[i] for i in stay]
        self._nearest = min(self._left)
        return stay
