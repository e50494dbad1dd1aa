"""What the workaround of 2022 can judge of a part: what is there when it is written, and nothing of what follows.

Left out on purpose: guesses. A part whose worth only later parts decide earns 0, whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textgym.episode import Episode
from textgym.tasks.number_duel import NumberDuel
from textgym.tasks.three_sentences import ThreeSentences


@dataclass(frozen=True)
class DuelParts:
    """Judges lines of the number duel: A's number earns 0, there is no B yet; B's is judged against A's.

    A part of another form pays 1 less than losing, as the duel itself has it.
    """

    task: NumberDuel

    def __call__(self, parts: Sequence[Episode]) -> list[float]:
        """Give one number per part."""
        return [self._judge(part) for part in parts]

    def _judge(self, part: Episode) -> float:
        number, malformed = part.prompt.metadata["part"], self.task.masses[1] - 1
        if number == 0:
            return 0.0 if re.fullmatch(r"A: [0-9]{2}\n", part.text) else malformed
        if number == 1:
            symbols = "[a-j]" if self.task.numerals == "letters" else "[0-9]"
            line, before = re.fullmatch(rf"B: ({symbols}{{2}})\n", part.text), re.search(r"A: ([0-9]{2})\n$", part.prompt.text)
            if line is None:
                return malformed
            said = int(line[1].translate(str.maketrans("abcdefghij", "0123456789")))
            if before is None or said == int(before[1]):
                return 0.0
            return self.task.masses[0 if said > int(before[1]) else 1]
        return 0.0 if number == 2 and part.text == "" and part.ended_by == "eos" else malformed


@dataclass(frozen=True)
class SentenceParts:
    """Judges sentences: the first earns 0, what it is judged by is not there yet; the others a third where they are longer.

    Longer than the sentence before, as their criteria say. A part of another form pays ``-mass``.
    """

    task: ThreeSentences

    def __call__(self, parts: Sequence[Episode]) -> list[float]:
        """Give one number per part."""
        return [self._judge(part) for part in parts]

    def _judge(self, part: Episode) -> float:
        number = part.prompt.metadata["part"]
        if number == 3:
            return 0.0 if part.text == "" and part.ended_by == "eos" else -self.task.mass
        form = re.fullmatch(r"\s*[A-Za-z]+(?: [A-Za-z]+)*\.", part.text)
        words = len(part.text.split())
        if form is None or number > 3 or words > self.task.max_words[number]:
            return -self.task.mass
        before = part.prompt.text.split(".")[:-1]
        return self.task.mass / 3 if number and words > len(before[-1].split()) else 0.0


WORKAROUNDS: Mapping[type, tuple[Callable[[Any], Callable[[Sequence[Episode]], list[float]]], tuple[str, ...]]] = {
    NumberDuel: (DuelParts, ("\n",)),
    ThreeSentences: (SentenceParts, (".",)),
}
"""Class of a task -> what judges its parts, and what ends one."""
