"""Guess the number: the agent guesses, the environment answers higher or lower.

Left out on purpose: numbers that the prompt could give away. The secret is in the prompt's metadata, which no model sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_DIGITS = "0123456789"


class GuessNumber(Task):
    """Find a number by guessing; each guess is paid for the part of the remaining range that it removed.

    Description:
        The environment thinks of a number. The agent writes a guess and a newline; the environment answers ``higher`` or
        ``lower``, and so on, until the number is found or no guess is left.

    Prompt:
        Empty (the begin-of-text token alone); the number is ``metadata["number"]``.

    Action space:
        One token of the built-in tokenizer: ten digits, newline, ``higher``, ``lower``, end-of-text.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        With n numbers possible before a guess and m after its answer (0 when it was found), the guess earns
        ``(log(n + 1) - log(m + 1)) / log(size + 1)``, on its last token: all guesses of a text that finds the number
        add up to 1. Guessing what is already excluded earns 0. A message that is no guess (``width`` digits and a
        newline) ends the text and pays -1 on the token that broke it. One stream: a later guess is as good as the
        earlier ones let it be. Replies are the environment's (``agent_mask`` False) and are never paid.

    Episode end:
        The number is found, no guess is left, or a message is no guess.

    Score:
        Share of texts that find the number.

    Arguments:
        size: the number is one of 0 .. size - 1, written with as many digits as size - 1 has.
        guesses: how many the agent has.
        tokenizer: default: the built-in one.

    Version history:
        v0: first version.
    """

    max_prompt_tokens = 1
    turn_stop = ("\n",)

    def __init__(self, size: int = 10, guesses: int = 3, tokenizer: Any = None) -> None:
        if size < 2 or guesses < 1:
            raise ValueError(f"size is {size} and guesses {guesses}; size must be at least 2 and guesses at least 1")
        self.size = size
        self.guesses = guesses
        self.width = len(str(size - 1))
        self.tokenizer = (
            symbol_tokenizer([*_DIGITS, "\n", "higher", "lower"]) if tokenizer is None else TextTokenizer(tokenizer)
        )
        # A model's own tokenizer may need several tokens for what is one symbol here.
        message, answer = (self.width + 1, 2) if tokenizer is None else (4 * (self.width + 1), 16)
        self.max_turn_tokens = message
        self.max_new_tokens = guesses * message
        self.max_response_tokens = guesses * message + (guesses - 1) * answer

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Think of a number."""
        return Prompt("", metadata={"number": int(rng.integers(self.size))})

    def reply(self, episode: Episode) -> str | None:
        """Answer the last guess; None where it is right, the last one, or no guess."""
        guesses = self.read(episode)
        number = episode.prompt.metadata["number"]
        if guesses[-1] is None or guesses[-1] == number or len(guesses) == self.guesses:
            return None
        return "higher\n" if number > guesses[-1] else "lower\n"

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token; see the datasheet."""
        return [self._reward(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether the number was found."""
        return self.read(episode)[-1] == episode.prompt.metadata["number"]

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Mean of guesses made, and the share of texts in which every message is a guess."""
        read = [self.read(episode) for episode in episodes]
        return {
            "guesses": float(np.mean([len(guesses) for guesses in read])) if read else 0.0,
            "well_formed": float(np.mean([None not in guesses for guesses in read])) if read else 0.0,
        }

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, Sequence[str]]]:
        """Draw games of uniformly random guesses: the agent's message, the reply, and so on."""
        games = []
        for number in rng.integers(self.size, size=count).tolist():
            said: list[str] = []
            for guess in rng.integers(self.size, size=self.guesses).tolist():
                said.append(f"{guess:0{self.width}d}\n")
                if guess == number or len(said) == 2 * self.guesses - 1:
                    break
                said.append("higher\n" if number > guess else "lower\n")
            games.append((Prompt("", metadata={"number": number}), said))
        return games

    def read(self, episode: Episode) -> list[int | None]:
        """Read the agent's messages as numbers; None stands for one that is no guess."""
        return [self._number(message) for message, _ in self._messages(episode)]

    def _number(self, message: str) -> int | None:
        digits = message.removesuffix("\n")
        fits = message.endswith("\n") and len(digits) == self.width and all(digit in _DIGITS for digit in digits)
        return int(digits) if fits and int(digits) < self.size else None

    def _messages(self, episode: Episode) -> list[tuple[str, int]]:
        """Give the text and the first character of each of the agent's messages."""
        out = []
        for turn in range(int(episode.turns[episode.agent_mask].max()) + 1):
            held = episode.offsets[episode.agent_mask & (episode.turns == turn)]
            # A part of a text, as assigners judge it, may lack the message.
            out.append((episode.text[held[0, 0] : held[-1, 1]], int(held[0, 0])) if len(held) else ("", 0))
        return out

    def _reward(self, episode: Episode) -> Reward:
        paid = np.zeros(len(episode.ids))
        number = episode.prompt.metadata["number"]
        low, high = 0, self.size  # half-open range of what is possible
        for turn, (message, start) in enumerate(self._messages(episode)):
            tokens = np.flatnonzero(episode.agent_mask & (episode.turns >= turn))
            tokens = tokens[episode.turns[tokens] == episode.turns[tokens[0]]]  # the next message's, where this one is missing
            guess = self._number(message)
            if guess is None:
                paid[self._violation(episode, message, start, int(tokens[-1]))] = -1.0
                break
            before = high - low
            if guess == number:
                low = high
            elif guess < number:
                low = max(low, guess + 1)
            else:
                high = min(high, guess)
            paid[tokens[-1]] = (math.log(before + 1) - math.log(high - low + 1)) / math.log(self.size + 1)
        return paid

    def _violation(self, episode: Episode, message: str, start: int, last: int) -> int:
        """Find the token that broke a message: its last one where it ended too early or names too large a number."""
        allowed = [_DIGITS] * self.width + ["\n"]
        for position, character in enumerate(message):
            if position >= len(allowed) or character not in allowed[position]:
                return episode.token_at(start + position)
        return last
