"""Three sentences, each judged by a criterion of its own, a constant mass split among them.

Left out on purpose: grammar and meaning. The words are a small closed vocabulary, so that a tiny model can write
sentences and only the credit is hard: the first sentence is judged by what the third says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt, Span
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_WORDS = ("I", "you", "we", "birds", "cats", "see", "like", "find", "old", "red", "big", "trees")
_WORD = re.compile(r"[A-Za-z]+")
_OPEN_SENTENCE = re.compile(r"\s*(?:[A-Za-z]+(?: [A-Za-z]+)*)?")
_SENTENCE = re.compile(r"\s*([A-Za-z]+(?: [A-Za-z]+)*)\.")
CRITERIA = ("first", "second", "third")
_THIRD_PARTY = (1, 2, 0)  # the sentence that each criterion does not speak of


class ThreeSentences(Task):
    """Write three sentences; a constant mass is split among them, the first judged in the light of the third.

    Description:
        A sentence is some words and a full stop. The first sentence meets its criterion when the third contains its first
        word; the second when it has more words than the first; the third when it has more than the second. A sentence may
        have at most ``max_words`` of its place, rising from first to third, so that nobody can make the next one fail by
        filling the room.

    Prompt:
        Empty (the begin-of-text token alone).

    Action space:
        One token of the built-in tokenizer: twelve words with the space before them, the full stop, end-of-text.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        Three criteria, ``first``, ``second``, ``third``, each a span over its sentence. Every well-formed text earns
        ``mass`` in total, so a scalar reward teaches nothing but the form. ``split`` says who gets it. "third_party": each
        sentence that meets its criterion keeps a third; a share that is missed goes to the sentence that the criterion
        does not speak of, so that nobody gains from another's miss that he could cause. "even": the mass is divided evenly
        among those that meet theirs (all three where none does), so that the third sentence gains when the first misses
        and learns to avoid its first word. Sentence i is stream i, its full stop included; what follows the third belongs
        to it. A text of another form pays only -mass, on the first token that breaks it (its last token, where it ended
        too early or was cut).

    Episode end:
        End-of-text, or ``max_new_tokens``.

    Score:
        Mean share of the three criteria that are met; a text of another form meets none. Success: all three are met.

    Arguments:
        mass: what a well-formed text earns in total.
        split: "third_party" or "even".
        max_words: most words of the first, second and third sentence.
        tokenizer: default: the built-in one.

    Version history:
        v0: first version.
    """

    max_prompt_tokens = 1

    def __init__(
        self,
        mass: float = 1.0,
        split: Literal["third_party", "even"] = "third_party",
        max_words: tuple[int, int, int] = (4, 6, 8),
        tokenizer: Any = None,
    ) -> None:
        if not mass > 0:
            raise ValueError(f"mass is {mass}; it must be above 0")
        if split not in ("third_party", "even"):
            raise ValueError(f"split is {split!r}; allowed are 'third_party' and 'even'")
        if len(max_words) != 3 or not 0 < max_words[0] < max_words[1] < max_words[2]:
            raise ValueError(f"max_words is {max_words}; give three rising whole numbers, the first at least 1")
        self.mass = mass
        self.split = split
        self.max_words = max_words
        words = sum(max_words)
        self.max_new_tokens = words + 4 if tokenizer is None else 4 * words + 16
        self.tokenizer = (
            symbol_tokenizer([*(f" {word}" for word in _WORDS), "."]) if tokenizer is None else TextTokenizer(tokenizer)
        )

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Give the empty prompt."""
        return Prompt("")

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give three criteria of one span each, or the penalty; see the datasheet."""
        return [self._reward(episode) for episode in episodes]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
        """Give each token the number of its sentence, 0 to 2."""
        streams = []
        for episode in episodes:
            stops = np.array([i for i, character in enumerate(episode.text) if character == "."], dtype=np.int64)
            streams.append(np.minimum(np.searchsorted(stops, episode.last_characters()), len(CRITERIA) - 1))
        return streams

    def success(self, episode: Episode) -> bool:
        """Say whether all three criteria are met."""
        return all(self.judge(episode) or (False,))

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean share of criteria met."""
        return float(np.mean([self.judge(e) or (False,) * 3 for e in episodes])) if episodes else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Share of texts that meet each criterion, and of well-formed ones."""
        judged = [self.judge(episode) for episode in episodes]
        met = np.array([verdict or (False,) * 3 for verdict in judged]).reshape(-1, 3)
        shares = {name: float(met[:, i].mean()) if len(met) else 0.0 for i, name in enumerate(CRITERIA)}
        return shares | {"well_formed": float(np.mean([verdict is not None for verdict in judged])) if judged else 0.0}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw sentences of uniformly random words and lengths."""
        texts = []
        for lengths in rng.integers(1, np.array(self.max_words) + 1, size=(count, 3)).tolist():
            texts.append("".join("".join(f" {w}" for w in rng.choice(_WORDS, size=n)) + "." for n in lengths))
        return [(Prompt(""), text) for text in texts]

    def judge(self, episode: Episode) -> tuple[bool, bool, bool] | None:
        """Say which criteria are met, or None where the text is not three sentences."""
        sentences = self._sentences(episode)
        if sentences is None:
            return None
        first, second, third = (match.group(1).split() for match in sentences)
        return first[0] in third, len(second) > len(first), len(third) > len(second)

    def _sentences(self, episode: Episode) -> list[re.Match[str]] | None:
        matches, end = self._read(episode.text)
        done = len(matches) == 3 and not episode.text[end:].strip() and episode.ended_by == "eos"
        return matches if done else None

    def _read(self, text: str) -> tuple[list[re.Match[str]], int]:
        """Read up to three sentences from the start of ``text``; also say where the rest begins."""
        matches: list[re.Match[str]] = []
        end = 0
        while len(matches) < 3:
            match = _SENTENCE.match(text, end)
            if match is None or len(match.group(1).split()) > self.max_words[len(matches)]:
                break
            matches.append(match)
            end = match.end()
        return matches, end

    def _reward(self, episode: Episode) -> Reward:
        sentences, verdict = self._sentences(episode), self.judge(episode)
        if sentences is None or verdict is None:
            penalty = np.zeros(len(episode.ids))
            penalty[self._first_violation(episode)] = -self.mass
            return penalty
        shares = self._shares(verdict)
        return {
            name: [Span(match.start(), match.end(), float(share))]
            for name, match, share in zip(CRITERIA, sentences, shares, strict=True)
        }

    def _shares(self, verdict: tuple[bool, bool, bool]) -> npt.NDArray[np.float64]:
        """Split the mass; the three shares add up to it."""
        if self.split == "even":
            met = np.array(verdict) if any(verdict) else np.ones(3, dtype=np.bool_)
            return met * self.mass / met.sum()
        shares = np.zeros(3)
        for sentence, (met, third_party) in enumerate(zip(verdict, _THIRD_PARTY, strict=True)):
            shares[sentence if met else third_party] += self.mass / 3
        return shares

    def _first_violation(self, episode: Episode) -> int:
        """Find the token that broke the form: the last one where the text ended too early or was cut."""
        matches, position = self._read(episode.text)
        if len(matches) < 3:
            end = _OPEN_SENTENCE.match(episode.text, position).end()  # type: ignore[union-attr]
            words = list(_WORD.finditer(episode.text, position, end))
            most = self.max_words[len(matches)]
            position = words[most].start() if len(words) > most else (words[-1].end() if words else position)
        rest = episode.text[position:]
        position += len(rest) - len(rest.lstrip())
        return episode.token_at(position) if position < len(episode.text) else len(episode.ids) - 1
