"""The number duel in two turns, against an opponent: scripted, or a player of one's own that is kept as it is.

Left out on purpose: learning of the opponent. It is a function from the text so far to its line, and its line is a reply: never
paid and never trained on. What wants two learners in one text is the number duel itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.names import resolve_name
from textgym.parts import turns
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_DIGITS = "0123456789"
_LETTERS = "abcdefghij"
_FORFEIT = "B: ?\n"
_LINE = re.compile(r"A: ([0-9]{2})\n")
_REPLY = re.compile(r"B: ([a-j]{2})\n")
_ALLOWED = ("A", ":", " ", _DIGITS, _DIGITS, "\n")
SCRIPTS: Mapping[str, Callable[[int, int], int]] = {
    "random": lambda said, drawn: drawn,
    "copycat": lambda said, drawn: said,
    "topper": lambda said, drawn: min(99, said + 1),
}
"""Name -> what the opponent says, from what the agent said and a number drawn with the prompt."""


class TurnDuel(Task):
    r"""Say a number, hear the opponent's, and outbid it by as little as you can.

    Description:
        The agent says a number, ``A: 47\n``; the opponent answers with its own in letters (a to j stand for 0 to 9),
        ``B: fc\n``; the agent says another, ``A: 53\n``. What the first number is worth is known when the opponent has spoken.

    Prompt:
        Empty (the begin-of-text token alone); the number that the script "random" says is ``metadata["drawn"]``.

    Action space:
        One token of the built-in tokenizer: ``A B : space newline ?``, digits, letters a to j, end-of-text.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        The first line earns 1 where its number is larger than the opponent's, -1 where it is smaller, 0 at a tie. The second
        earns ``1 - (margin - 1) / 99`` where its number is larger by ``margin``, 0 at a tie, -1 where it is smaller.
        ``reward="dense"`` pays each on the line's last token, ``reward="scalar"`` their sum on the text's. A line of the
        agent's that is not ``A: NN\n`` ends the text and pays -2 on the token that broke it. The opponent's line is the
        environment's (``agent_mask`` False) and never paid; one of another form than ``B: xx\n`` is written ``B: ?\n``: the
        opponent forfeits, the first line wins and the second earns 0. One stream: what the opponent answers, and so what the
        second line can earn, may be the first one's doing.

    Episode end:
        The second line, or a line of another form.

    Score:
        Mean of both lines' shares over all texts: the first has 1, 1/2 or 0 for larger, equal or smaller, the second its reward
        where that is above 0. Success: both numbers are larger.

    Arguments:
        opponent: "random" (its number is drawn with the prompt), "copycat" (says the agent's number), "topper" (one more), or a
            player: a function from the text so far to its line, or its name "module:Name". It must be a function of the text: a
            policy plays greedily. Of what it says, the text up to its first newline counts.
        reward: "dense" or "scalar".
        tokenizer: default: the built-in one.

    Version history:
        v0: first version.
    """

    max_prompt_tokens = 1
    turn_stop = ("\n",)

    def __init__(
        self,
        opponent: str | Callable[[str], str] = "random",
        reward: Literal["dense", "scalar"] = "dense",
        tokenizer: Any = None,
    ) -> None:
        if reward not in ("dense", "scalar"):
            raise ValueError(f"reward is {reward!r}; allowed are 'dense' and 'scalar'")
        if isinstance(opponent, str) and opponent not in SCRIPTS and ":" in opponent:
            opponent = resolve_name(opponent)
        if not callable(opponent) and opponent not in SCRIPTS:
            raise ValueError(
                f"opponent is {opponent!r}; allowed are {', '.join(map(repr, SCRIPTS))}, a function from the text so far to a "
                "line 'B: xx\\n', and its name 'module:Name'"
            )
        self.opponent, self.reward = opponent, reward
        self.tokenizer = (
            symbol_tokenizer(["A", "B", ":", " ", "\n", "?", *_DIGITS, *_LETTERS])
            if tokenizer is None
            else TextTokenizer(tokenizer)
        )
        # A model's own tokenizer may need several tokens for what is one symbol here.
        self.max_turn_tokens = len(_ALLOWED) * (1 if tokenizer is None else 4)
        self.max_new_tokens = 2 * self.max_turn_tokens
        self.max_response_tokens = 3 * self.max_turn_tokens

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw the number that the script "random" says."""
        return Prompt("", metadata={"drawn": int(rng.integers(100))})

    def reply(self, episode: Episode) -> str | None:
        """Let the opponent speak; None after the second line, or where the first has another form."""
        said = self.numbers(episode)
        return None if len(said) == 2 or said[0] is None else self._answer(episode.text, said[0], episode.prompt)

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token, or their sum; see the datasheet."""
        paid = [self._reward(episode) for episode in episodes]
        return paid if self.reward == "dense" else [float(each.sum()) for each in paid]

    def success(self, episode: Episode) -> bool:
        """Say whether both numbers are larger than the opponent's."""
        return self._earned(episode)[0] > 0 and self._earned(episode)[1] > 0

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean of both lines' shares."""
        shares = [((first + 1) / 2 + max(0.0, second)) / 2 for first, second in map(self._earned, episodes)]
        return float(np.mean(shares)) if shares else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Mean first number, mean margin of the second where it is larger, shares of well-formed and of forfeited texts."""
        said = [self.numbers(episode) for episode in episodes]
        firsts = [numbers[0] for numbers in said if numbers[0] is not None]
        margins = [99 * (1 - second) + 1 for _, second in map(self._earned, episodes) if second > 0]
        whole = [len(numbers) == 2 and None not in numbers for numbers in said]
        return {
            "first": float(np.mean(firsts)) if firsts else float("nan"),
            "margin": float(np.mean(margins)) if margins else float("nan"),
            "well_formed": float(np.mean(whole)) if whole else 0.0,
            "forfeited": float(np.mean([_FORFEIT in episode.text for episode in episodes])) if episodes else 0.0,
        }

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, Sequence[str]]]:
        """Draw games of uniformly random numbers, with the opponent's true answers."""
        games = []
        for prompt in [self.sample(rng) for _ in range(count)]:
            first, second = rng.integers(100, size=2).tolist()
            line = f"A: {first:02d}\n"
            games.append((prompt, [line, self._answer(line, first, prompt), f"A: {second:02d}\n"]))
        return games

    def numbers(self, episode: Episode) -> list[int | None]:
        """Read the agent's lines as numbers; None stands for a line of another form."""
        lines = [_LINE.fullmatch(episode.text[part.start : part.end]) for part in turns(episode)]
        return [None if line is None else int(line[1]) for line in lines]

    def _answer(self, text: str, said: int, prompt: Prompt) -> str:
        if isinstance(self.opponent, str):
            number = SCRIPTS[self.opponent](said, prompt.metadata["drawn"])
            return "B: " + "".join(_LETTERS[int(digit)] for digit in f"{number:02d}") + "\n"
        line, newline, _ = self.opponent(text).partition("\n")
        return line + newline if _REPLY.fullmatch(line + newline) else _FORFEIT

    def _earned(self, episode: Episode) -> tuple[float, float]:
        """Say what the two lines earn; -1 each where a line of the agent's is missing or has another form."""
        said = self.numbers(episode)
        if len(said) < 2 or said[0] is None:
            return -1.0, -1.0
        reply = _REPLY.match(episode.text, turns(episode)[0].end)
        if reply is None:
            return 1.0, 0.0 if said[1] is not None else -1.0
        number = int("".join(str(_LETTERS.index(letter)) for letter in reply[1]))
        first = float(np.sign(said[0] - number))
        if said[1] is None or said[1] < number:
            return first, -1.0
        return first, 1 - (said[1] - number - 1) / 99 if said[1] > number else 0.0

    def _reward(self, episode: Episode) -> npt.NDArray[np.float64]:
        paid = np.zeros(len(episode.ids))
        lines = zip(turns(episode), self.numbers(episode), self._earned(episode), strict=False)
        for turn, (part, number, earned) in enumerate(lines):
            own = np.flatnonzero(episode.agent_mask & (episode.turns == turn))
            # A part of a text, as assigners judge it, may lack the line: what comes next broke it then.
            last = int(own[-1] if len(own) else np.flatnonzero(episode.agent_mask)[0])
            if number is not None:
                paid[last] = earned
                continue
            line = episode.text[part.start : part.end]
            wrong = (i for i, c in enumerate(line) if i >= len(_ALLOWED) or c not in _ALLOWED[i])
            paid[next((episode.token_at(part.start + i) for i in wrong), last)] = -2.0
            break  # nothing counts after it
        return paid
