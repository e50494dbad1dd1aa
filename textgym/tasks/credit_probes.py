"""Probes of credit assignment: tasks so small that what every token is worth can be counted out (``textgym.exact``).

Left out on purpose: language, and any use as a benchmark of learning. Each probe is one difficulty of credit assignment, alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import symbol_tokenizer


class Probe(Task):
    """A few symbols, one after the other; some of them earn something.

    Description:
        The k-th token of the agent is meant to be one of ``choices[k]``. Other tokens are allowed and earn nothing.

    Prompt:
        Empty (the begin-of-text token alone).

    Action space:
        One token of the built-in tokenizer: the symbols of ``choices`` (and of replies), end-of-text.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        What each symbol earns is paid on its token, as soon as the text up to there decides it: exact credit. One stream, but
        where the probe says otherwise. A text that is only a part of one is judged as it stands.

    Episode end:
        All choices are made, or end-of-text.

    Score:
        Share of texts that earn the most that there is.

    Version history:
        v0: first version.
    """

    choices: Sequence[str] = ()
    """Which symbols the agent's k-th token is meant to be."""
    may_stop: bool = False
    """Whether end-of-text is one of the choices, at every place."""
    said: str = ""
    """Symbols of the environment's replies."""
    best: float = 1.0
    """The most that a text can earn; NaN where parts of a text have goals of their own."""
    max_prompt_tokens = 1

    def __init__(self) -> None:
        self.tokenizer = symbol_tokenizer([*dict.fromkeys("".join(self.choices) + self.said)])
        self.max_new_tokens = len(self.choices)

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """Say what characters of a text earn: (position, reward) each."""
        raise NotImplementedError

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Give the empty prompt."""
        return Prompt("")

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token; see the datasheet."""
        out = []
        for episode in episodes:
            paid = np.zeros(len(episode.ids))
            for position, reward in self.earned(episode.text):
                paid[episode.token_at(position)] += reward
            out.append(paid)
        return out

    def success(self, episode: Episode) -> bool:
        """Say whether the text earns the most that there is."""
        return bool(np.isclose(sum(reward for _, reward in self.earned(episode.text)), self.best))

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str | Sequence[str]]]:
        """Draw texts of uniformly random choices."""
        drawn = ["".join(str(rng.choice(list(symbols))) for symbols in self.choices) for _ in range(count)]
        return [(Prompt(""), text) for text in drawn]


class ProbeDuel(Probe):
    """A constant mass: two numbers from 0 to 3, +1 for the larger and -1 for the smaller; each is a stream.

    The total is 0 whatever is said: no assigner can find in it what it does not hold. Datasheet: ``Probe``.
    """

    choices = ("0123", "4567")  # the second speaker's numerals are others, as in the number duel: 4 says 0
    best = float("nan")

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """+1 on the larger number, -1 on the smaller, nothing on a tie."""
        if len(text) != 2 or text[0] not in self.choices[0] or text[1] not in self.choices[1]:
            return []
        first = float(np.sign(int(text[0]) + 4 - int(text[1])))
        return [(0, first), (1, -first)]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
        """Give each place a stream of its own."""
        return _by_place(episodes)


class ProbeDecisive(Probe):
    """One decisive token, far from the end: the first symbol earns 1 where it is ``a``; seven that mean nothing follow.

    Datasheet: ``Probe``.
    """

    choices = ("ab", *["xy"] * 7)

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """1 on the first ``a``."""
        return [(text.index("a"), 1.0)] if "a" in text else []


class ProbeJoint(Probe):
    """Two tokens decide together: 1 where ``a`` goes with ``c``, or ``b`` with ``d``; the later one is paid.

    Datasheet: ``Probe``.
    """

    choices = ("ab", "xy", "cd", "xy")

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """1 on the later symbol of the first pair that is there."""
        ends = [max(text.index(one), text.index(other)) for one, other in ("ac", "bd") if one in text and other in text]
        return [(min(ends), 1.0)] if ends else []


class ProbeDistractors(Probe):
    """Two tokens that matter (``a`` earns 1, ``c`` -.5) among four that do not. Datasheet: ``Probe``."""

    choices = ("xy", "ab", "xy", "xy", "cd", "xy")

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """1 on each ``a``, -.5 on each ``c``."""
        return [(place, 1.0 if symbol == "a" else -0.5) for place, symbol in enumerate(text) if symbol in "ac"]


class ProbeReply(Probe):
    """Credit across the environment's reply: ``a`` is answered ``+``, ``b`` is answered ``-``.

    ``x`` after ``+`` earns 1, ``y`` after ``-`` earns .4: only the second message is paid, and the first one decides for how
    much. Datasheet: ``Probe``.
    """

    choices = ("ab", "xy")
    said = "+-"
    max_turn_tokens = 1
    max_response_tokens = 3

    def reply(self, episode: Episode) -> str | None:
        """Answer the first message."""
        if len(episode.ids) > 1:
            return None
        return "+" if episode.text == "a" else "-"

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """1 on ``x`` after ``+``, .4 on ``y`` after ``-``."""
        return [(1 + text.index(pair), earns) for pair, earns in (("+x", 1.0), ("-y", 0.4)) if pair in text]

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, Sequence[str]]]:
        """Draw conversations of uniformly random choices."""
        drawn = [[str(rng.choice(list(symbols))) for symbols in self.choices] for _ in range(count)]
        return [(Prompt(""), [first, "+" if first == "a" else "-", second]) for first, second in drawn]


class ProbeLength(Probe):
    """Texts of any length up to 4: ``a`` earns 1, .5, -.5, -1, each less than the one before; ``b`` costs .25; or stop.

    Two ``a`` and an end earn most. Datasheet: ``Probe``.
    """

    choices = ("ab", "ab", "ab", "ab")
    may_stop = True
    best = 1.5

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """By how many ``a`` stand before."""
        earns = {"b": [-0.25] * 4, "a": [1.0, 0.5, -0.5, -1.0]}
        return [(i, earns[symbol][text[:i].count(symbol)]) for i, symbol in enumerate(text) if symbol in earns]


class ProbeStreams(Probe):
    """Two streams that influence each other, or do not: ``a`` earns 1 in stream 0; what follows earns in stream 1.

    Apart, ``c`` earns 1. With ``influence``, ``d`` earns 2 after ``b`` and nothing else does: what is good for stream 0 then
    hurts stream 1. A policy that looks at the first token lets it influence the second one however they are paid, so the
    streams are apart only under policies that look at the place alone.

    Arguments:
        influence: whether what the second symbol earns depends on the first.

    Datasheet: ``Probe``.
    """

    choices = ("ab", "cd")

    def __init__(self, influence: bool = True) -> None:
        super().__init__()
        self.influence = influence
        self.best = 2.0

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """See above."""
        first = [(0, 1.0)] if text.startswith("a") else []
        if self.influence:
            return [*first, *([(1, 2.0)] if text.startswith("bd") else [])]
        return [*first, *([(1, 1.0)] if text[1:] == "c" else [])]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
        """Give each place a stream of its own."""
        return _by_place(episodes)


class ProbePennies(Probe):
    """Matching pennies: ``hH`` and ``tT`` earn +1 in stream 0 and -1 in stream 1, the others the reverse.

    Where the second player does not see the first one's coin (a policy that looks at the place alone), each stream's own
    gradient turns around the even mixture and never arrives: simultaneous gradients of a game cycle. Datasheet: ``Probe``.
    """

    choices = ("ht", "HT")
    best = float("nan")

    def earned(self, text: str) -> Sequence[tuple[int, float]]:
        """+1 and -1, or -1 and +1."""
        if len(text) != 2 or text[0] not in "ht" or text[1] not in "HT":
            return []
        first = 1.0 if text[0].upper() == text[1] else -1.0
        return [(0, first), (1, -first)]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
        """Give each place a stream of its own."""
        return _by_place(episodes)


def _by_place(episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
    return [np.minimum(np.arange(len(episode.ids)), 1) for episode in episodes]
