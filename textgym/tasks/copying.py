"""Copying: repeat, reverse or sort the symbols of the prompt; the smallest task on which token rewards can be seen to help.

Left out on purpose: anything hard. A multilayer perceptron over the observation learns it in seconds, so that every library
of agents can show on it that it is joined rightly.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_SEPARATOR = ">"


class Copying(Task):
    """Repeat the symbols of the prompt in their order, backwards, or sorted; each right one earns its share.

    Description:
        The prompt has k symbols and a separator, ``cabc>``; the right response is ``cabc`` (mode "copy"), ``cbac``
        ("reverse") or ``abcc`` ("sort"). It ends by itself after k symbols.

    Prompt:
        k letters, each uniformly one of the first ``alphabet``, and ``>``.

    Action space:
        One token of the built-in tokenizer: begin-of-text, end-of-text, the letters, ``>``.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        ``reward="dense"`` pays ``1 / k`` on the token of each symbol that is right in its place and 0 on all others;
        ``reward="scalar"`` pays their sum on the last token. Nothing is paid before the end. Symbols that are never
        written are wrong. One stream: who ends the text early takes from the places that follow.

    Episode end:
        k symbols, end-of-text, or as many tokens as the longest prompt has symbols.

    Score:
        Mean share of right symbols. Success: all are right.

    Arguments:
        mode: "copy", "reverse" or "sort".
        length: k, or the least and the greatest that are drawn uniformly.
        alphabet: how many letters there are, 2 to 26.
        reward: "dense" or "scalar".
        tokenizer: default: the built-in one. A symbol is a character of the text, whatever tokens hold it.

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        mode: Literal["copy", "reverse", "sort"] = "copy",
        length: int | tuple[int, int] = 4,
        alphabet: int = 8,
        reward: Literal["dense", "scalar"] = "dense",
        tokenizer: Any = None,
    ) -> None:
        if mode not in ("copy", "reverse", "sort"):
            raise ValueError(f"mode is {mode!r}; allowed are 'copy', 'reverse' and 'sort'")
        if reward not in ("dense", "scalar"):
            raise ValueError(f"reward is {reward!r}; allowed are 'dense' and 'scalar'")
        lengths = (length, length) if isinstance(length, int) else tuple(length)
        if len(lengths) != 2 or not 1 <= lengths[0] <= lengths[1]:
            raise ValueError(f"length is {length}; give a whole number of at least 1, or two rising ones")
        if not 2 <= alphabet <= len(string.ascii_lowercase):
            raise ValueError(f"alphabet is {alphabet}; allowed are 2 to {len(string.ascii_lowercase)} letters")
        self.mode = mode
        self.lengths = lengths
        self.letters = string.ascii_lowercase[:alphabet]
        self.reward = reward
        self.tokenizer = symbol_tokenizer([*self.letters, _SEPARATOR]) if tokenizer is None else TextTokenizer(tokenizer)
        # Another tokenizer may put a token of its own before the first letter.
        self.max_prompt_tokens = lengths[1] + (1 if tokenizer is None else 2)
        self.max_new_tokens = lengths[1]

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw the symbols."""
        count = int(rng.integers(self.lengths[0], self.lengths[1] + 1))
        return Prompt("".join(self.letters[i] for i in rng.integers(len(self.letters), size=count)) + _SEPARATOR)

    def ended(self, prompt: Prompt, ids: npt.NDArray[np.int64]) -> bool:
        """Say whether as many symbols are written as the prompt has."""
        return len(self.tokenizer.decode(ids)) >= len(self.answer(prompt))

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token, or their sum; see the datasheet."""
        if self.reward == "scalar":
            return [self.share(episode) for episode in episodes]
        return [self._reward(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether every symbol is right."""
        return bool(self._right(episode).all())

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean share of right symbols."""
        return float(np.mean([self.share(episode) for episode in episodes])) if episodes else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Share of texts in which every symbol is right."""
        return {"all_right": float(np.mean([self.success(episode) for episode in episodes])) if episodes else 0.0}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw prompts and their right responses."""
        return [(prompt, self.answer(prompt)) for prompt in (self.sample(rng) for _ in range(count))]

    def answer(self, prompt: Prompt) -> str:
        """Give the right response to a prompt."""
        symbols = prompt.text.removesuffix(_SEPARATOR)
        if self.mode == "reverse":
            return symbols[::-1]
        return symbols if self.mode == "copy" else "".join(sorted(symbols))

    def share(self, episode: Episode) -> float:
        """Give the share of right symbols, in [0, 1]."""
        return float(self._right(episode).mean())

    def _right(self, episode: Episode) -> npt.NDArray[np.bool_]:
        """Say which places of the response hold the right symbol, bool (k,)."""
        answer = self.answer(episode.prompt)
        written = episode.text[: len(answer)].ljust(len(answer), _SEPARATOR)  # no symbol: wrong everywhere
        return np.array([one == other for one, other in zip(written, answer, strict=True)])

    def _reward(self, episode: Episode) -> npt.NDArray[np.float64]:
        paid = np.zeros(len(episode.ids))
        right = self._right(episode)
        for place in np.flatnonzero(right).tolist():
            paid[episode.token_at(place)] += 1 / len(right)
        return paid
