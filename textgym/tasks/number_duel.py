"""The number duel: two people in one generated text each say a number, and the larger one wins.

Left out on purpose: any knowledge of how the text was tokenised. Rewards and streams are found in characters and laid on
the tokens that hold them, so a model with a tokenizer of its own plays the same duel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.action_masks import MaskTable
from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_DIGITS = "0123456789"
_LETTERS = "abcdefghij"


class NumberDuel(Task):
    r"""Two people each say a number from 00 to 99; the larger one's tokens are rewarded, the smaller one's penalised.

    Description:
        The response has two lines, ``A: NN`` and ``B: xx``, and then ends. What A's number is worth is only known when B
        has spoken, and with masses (+1, -1) the two rewards add up to 0 whatever was said: a scalar reward teaches nothing.

    Prompt:
        Empty (the begin-of-text token alone).

    Action space:
        One token of the built-in tokenizer: ``A B : space newline``, digits, letters a to j, end-of-text.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        ``masses[0]`` on the last symbol of the larger number, ``masses[1]`` on that of the smaller; a tie pays nothing. A
        text that breaks the grammar ``A: NN\nB: xx\n`` pays only this: 1 less than losing, on the first token that
        breaks it, in that token's stream (a text cut by the length limit: on its last token). A's line is stream 0, B's
        stream 1; a newline belongs to the line that it ends, end-of-text to the line that it stands in.

    Episode end:
        End-of-text, or ``max_new_tokens``.

    Score:
        Mean of both numbers / 99 over well-formed texts, times their share. Success: the text is well-formed.

    Arguments:
        masses: rewards of the larger and the smaller number.
        numerals: how B says numbers, "letters" (a to j stand for 0 to 9) or "digits" as A does. A language model that
            says both numbers with the same tokens generalises from one speaker to the other; letters keep them apart.
        tokenizer: default: the built-in one.
        enforce_grammar: let the agent write only what the grammar allows next (action masks). A token is judged by the text
            that it decodes to alone.

    Version history:
        v0: first version.
    """

    max_prompt_tokens = 1
    max_new_tokens = 16

    def __init__(
        self,
        masses: tuple[float, float] = (1.0, -1.0),
        numerals: Literal["letters", "digits"] = "letters",
        tokenizer: Any = None,
        enforce_grammar: bool = False,
    ) -> None:
        if len(masses) != 2 or not masses[0] > masses[1]:
            raise ValueError(f"masses is {masses}; give two numbers, the larger number's first and the greater")
        if numerals not in ("letters", "digits"):
            raise ValueError(f"numerals is {numerals!r}; allowed are 'letters' and 'digits'")
        self.masses = (float(masses[0]), float(masses[1]))
        self.numerals = numerals
        self.tokenizer = (
            symbol_tokenizer(["A", "B", ":", " ", "\n", *_DIGITS, *_LETTERS]) if tokenizer is None else TextTokenizer(tokenizer)
        )
        self._second = _LETTERS if numerals == "letters" else _DIGITS
        self._malformed = self.masses[1] - 1.0
        self._grammar = re.compile(f"A: ([{_DIGITS}]{{2}})\nB: ([{self._second}]{{2}})\n")
        self._allowed = ["A", ":", " ", _DIGITS, _DIGITS, "\n", "B", ":", " ", self._second, self._second, "\n"]

        if enforce_grammar:
            self.token_masks = MaskTable(self.tokenizer.vocab_size)
            masks = np.zeros((len(self._allowed) + 1, self.tokenizer.vocab_size), dtype=np.bool_)
            masks[-1, self.tokenizer.eos_token_id] = True
            for token in range(self.tokenizer.vocab_size):
                text = self.tokenizer.decode(np.array([token]))
                for start in range(len(self._allowed) - len(text) + 1 if text else 0):
                    allowed = self._allowed[start : start + len(text)]
                    masks[start, token] = all(symbol in symbols for symbol, symbols in zip(text, allowed, strict=True))
            self._masks = np.array([self.token_masks.add(mask) for mask in masks])

    def mask_numbers(self, prompts: Sequence[Prompt], responses: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """Say which mask holds after each response: that of its number of characters."""
        return self._masks[[len(self.tokenizer.decode(ids)) for ids in responses]]

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Give the empty prompt."""
        return Prompt("")

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token; see the datasheet."""
        return [self._reward(episode) for episode in episodes]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
        """Give stream 0 to A's line and 1 to everything after it."""
        streams = []
        for episode in episodes:
            line_end = episode.text.find("\n") + 1 or len(episode.text) + 1  # one past A's newline
            streams.append((episode.last_characters() >= line_end).astype(np.int64))
        return streams

    def success(self, episode: Episode) -> bool:
        """Say whether the text is well-formed."""
        return self.numbers(episode) is not None

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean of both numbers / 99 over well-formed texts, times their share."""
        said = [numbers for numbers in map(self.numbers, episodes) if numbers is not None]
        return float(np.mean(said) / 99 * len(said) / len(episodes)) if said else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Mean of each number over well-formed texts, and the share of those."""
        said = [numbers for numbers in map(self.numbers, episodes) if numbers is not None]
        first, second = np.mean(said, axis=0) if said else (float("nan"), float("nan"))
        return {"first": float(first), "second": float(second), "well_formed": len(said) / max(1, len(episodes))}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw texts with uniformly random numbers."""
        numbers = rng.integers(100, size=(count, 2))
        return [(Prompt(""), f"A: {a:02d}\nB: {self._spell(b)}\n") for a, b in numbers.tolist()]

    def numbers(self, episode: Episode) -> tuple[int, int] | None:
        """Read both numbers, or None where the text breaks the grammar or did not end by itself."""
        match = self._grammar.fullmatch(episode.text)
        if match is None or episode.ended_by != "eos":
            return None
        first, second = match.groups()
        return int(first), int("".join(str(self._second.index(symbol)) for symbol in second))

    def _spell(self, number: int) -> str:
        return "".join(self._second[int(digit)] for digit in f"{number:02d}")

    def _reward(self, episode: Episode) -> npt.NDArray[np.float64]:
        paid = np.zeros(len(episode.ids))
        numbers = self.numbers(episode)
        if numbers is None:
            paid[self._first_violation(episode)] = self._malformed
        elif numbers[0] != numbers[1]:
            first_wins = numbers[0] > numbers[1]
            for end, wins in ((5, first_wins), (11, not first_wins)):  # one past each number's last symbol
                paid[episode.token_at(end - 1)] += self.masses[0] if wins else self.masses[1]
        return paid

    def _first_violation(self, episode: Episode) -> int:
        """Find the token that broke the grammar: the last one where the text ended too early or was cut."""
        for position, character in enumerate(episode.text):
            if position >= len(self._allowed) or character not in self._allowed[position]:
                return episode.token_at(position)
        return len(episode.ids) - 1
