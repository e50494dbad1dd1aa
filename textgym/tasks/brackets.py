"""Brackets: continue an opened text of brackets so that everything is closed; a wrong bracket pays where it stands.

Left out on purpose: a check while the text is written. The text is judged when it has ended, and the penalty still lands on
the bracket that broke it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_PAIRS = {"(": ")", "[": "]", "{": "}"}
_PARTNER = {closing: opening for opening, closing in _PAIRS.items()}


class Brackets(Task):
    """Close what the prompt opened, in the right order; a bracket that breaks the text pays the penalty itself.

    Description:
        The prompt is the beginning of a well-formed text of three kinds of brackets, as ``([]{``; the response goes on until
        every bracket is closed, ``})``, and ends. It may open further ones, and must close them too.

    Prompt:
        A random beginning with 1 to ``depth`` brackets open, and as many closed pairs in between as chance opens and closes
        within ``length`` brackets.

    Action space:
        One token of the built-in tokenizer: begin-of-text, end-of-text, six brackets.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        ``reward="dense"``: a bracket that closes one of the prompt's n open ones earns ``1 / n``.
        What breaks the text pays -1 on its own token: a closing bracket without its partner (nothing after it counts), or
        end-of-text, or the limit, while something is open: then the bracket of the response that was opened last and never
        closed pays, and where only the prompt's are open, the last token. ``reward="scalar"`` pays 1 for a well-formed
        text, else 0, on the last token. One stream: what may be closed is the earlier brackets' doing.

    Episode end:
        End-of-text, or ``max_new_tokens``.

    Score:
        Share of well-formed texts.

    Arguments:
        depth: most brackets that a prompt leaves open.
        length: most brackets of a prompt.
        reward: "dense" or "scalar".
        tokenizer: default: the built-in one.

    Version history:
        v0: first version.
    """

    def __init__(
        self, depth: int = 4, length: int = 8, reward: Literal["dense", "scalar"] = "dense", tokenizer: Any = None
    ) -> None:
        if not 1 <= depth <= length:
            raise ValueError(f"depth is {depth} and length {length}; give a depth of at least 1, and a length not below it")
        if reward not in ("dense", "scalar"):
            raise ValueError(f"reward is {reward!r}; allowed are 'dense' and 'scalar'")
        self.depth, self.length, self.reward = depth, length, reward
        self.tokenizer = symbol_tokenizer([*_PAIRS, *_PARTNER]) if tokenizer is None else TextTokenizer(tokenizer)
        self.max_prompt_tokens = length + (0 if tokenizer is None else 1)  # another one may begin with a token of its own
        self.max_new_tokens = 3 * depth + 1

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw the beginning of a text."""
        depth, said, opened = int(rng.integers(1, self.depth + 1)), "", list[str]()
        while len(opened) < depth:
            # A pair more than what is needed fits only while there is room for it.
            if opened and len(said) + depth - len(opened) + 2 <= self.length and rng.random() < 0.4:
                said += _PAIRS[opened.pop()]
            else:
                opened.append("([{"[int(rng.integers(3))])
                said += opened[-1]
        return Prompt(said)

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token; see the datasheet."""
        return [self._reward(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether the text is well-formed."""
        return self._read(episode)[1] is None

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Mean share of the prompt's brackets that are closed before anything breaks."""
        closed = [len(self._read(episode)[0]) / len(_open(episode.prompt.text)) for episode in episodes]
        return {"closed": float(np.mean(closed)) if closed else 0.0}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw beginnings and the shortest responses, every fourth one with a pair more."""
        out = []
        for i, prompt in enumerate(self.sample(rng) for _ in range(count)):
            pair = "([{"[int(rng.integers(3))] if i % 4 == 3 else ""
            closing = "".join(_PAIRS[bracket] for bracket in reversed(_open(prompt.text)))
            out.append((prompt, pair + _PAIRS.get(pair, "") + closing))
        return out

    def _read(self, episode: Episode) -> tuple[list[int], int | None]:
        """Find the tokens that close the prompt's brackets, and the one that broke the text (None: nothing did)."""
        before: list[str] = _open(episode.prompt.text)
        closed: list[int] = []
        opened: list[tuple[str, int]] = []  # of the response: the bracket, and where it stands
        for place, character in enumerate(episode.text):
            if character in _PAIRS:
                opened.append((character, place))
                continue
            partner = opened[-1][0] if opened else before[-1] if before else None
            if character not in _PARTNER or _PARTNER[character] != partner:
                return closed, episode.token_at(place)
            if opened:
                opened.pop()
            else:
                before.pop()
                closed.append(episode.token_at(place))
        if opened:
            return closed, episode.token_at(opened[-1][1])
        return closed, None if not before and episode.ended_by == "eos" else len(episode.ids) - 1

    def _reward(self, episode: Episode) -> npt.NDArray[np.float64]:
        paid = np.zeros(len(episode.ids))
        closed, broken = self._read(episode)
        if self.reward == "scalar":
            paid[-1] = float(broken is None)
            return paid
        np.add.at(paid, closed, 1 / len(_open(episode.prompt.text)))
        if broken is not None:
            paid[broken] -= 1.0
        return paid


def _open(text: str) -> list[str]:
    """List the brackets that a well-formed beginning leaves open, the outermost first."""
    opened: list[str] = []
    for character in text:
        if character in _PAIRS:
            opened.append(character)
        else:
            opened.pop()
    return opened
