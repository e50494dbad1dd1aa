"""JSON records: write an object with the fields that the prompt asks for; what breaks it pays where it stands.

Left out on purpose: a grammar of our own. Whether a text is JSON, and where it stops being it, is what ``json.loads`` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.parts import json_field
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

FIELDS: Mapping[str, type] = {"id": int, "at": int, "tag": str, "by": str, "on": bool}
"""Names that may be asked for, and the type of each one's value."""
_SYMBOLS = [*"{}[]:,", *(f'"{name}"' for name in FIELDS), '"', *"0123456789", *"abcde", "true", "false", "null"]


class JsonRecord(Task):
    """Write one JSON object with the fields that are asked for; each right field earns, what breaks the text pays itself.

    Description:
        The prompt names fields, ``tag,id>``, and the response is one JSON object that has them and no others, in any order:
        ``{"id":7,"tag":"abc"}``. ``id`` and ``at`` are whole numbers, ``tag`` and ``by`` texts, ``on`` is true or false.

    Prompt:
        1 to ``fields`` distinct names in random order, separated by commas, and ``>``.

    Action space:
        One token of the built-in tokenizer: begin-of-text, end-of-text, brackets, colon, comma, each name in quotes, a
        quote, ten digits, letters a to e, ``true``, ``false``, ``null``, and what prompts are made of.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        A text that is no JSON pays only -1, on the token where ``json.loads`` stops: the character that cannot stand there, the
        quote of a text that is never closed, the last token where the text breaks off. JSON that is no object pays -1 on the
        last token. Of an object with n fields asked for, ``reward="dense"`` pays ``1 / n`` on the value of each that is
        right, ``-1 / n`` on each value of the wrong type, of a name that was not asked for or that comes twice, and
        ``-1 / n`` on the last token for each field that is missing. ``reward="scalar"`` pays 1 on the last token where all is
        right and nothing else is there, 0 for any other object. One stream.

    Episode end:
        End-of-text, or ``max_new_tokens``.

    Score:
        Share of objects in which all is right.

    Arguments:
        fields: most fields asked for, 1 to 5.
        reward: "dense" or "scalar".
        tokenizer: default: the built-in one.

    Version history:
        v0: first version.
    """

    def __init__(self, fields: int = 2, reward: Literal["dense", "scalar"] = "dense", tokenizer: Any = None) -> None:
        if not 1 <= fields <= len(FIELDS):
            raise ValueError(f"fields is {fields}; allowed are 1 to {len(FIELDS)}")
        if reward not in ("dense", "scalar"):
            raise ValueError(f"reward is {reward!r}; allowed are 'dense' and 'scalar'")
        self.fields, self.reward = fields, reward
        self.tokenizer = symbol_tokenizer([*_SYMBOLS, *FIELDS, ">"]) if tokenizer is None else TextTokenizer(tokenizer)
        self.max_prompt_tokens = 2 * fields if tokenizer is None else 4 * fields + 1
        self.max_new_tokens = (8 if tokenizer is None else 12) * fields + 2

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw the fields."""
        return Prompt(",".join(self._names(rng)) + ">")

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token; see the datasheet."""
        return [self._reward(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether the object has what was asked for, and nothing else."""
        members = self._read(episode)[0]
        asked = _asked(episode.prompt)
        return members is not None and len(members) == len(asked) and all(_is_right(members, name) for name in asked)

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Share of texts that are a JSON object."""
        return {"well_formed": float(np.mean([self._read(e)[0] is not None for e in episodes])) if episodes else 0.0}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw prompts and objects; every second one has random fields in place of those asked for."""
        out = []
        for i in range(count):
            prompt, record = self.sample(rng), dict[str, Any]()
            for name in _asked(prompt) if i % 2 == 0 else self._names(rng):
                number, word = int(rng.integers(100)), "".join("abcde"[i] for i in rng.integers(5, size=rng.integers(1, 4)))
                record[name] = {int: number, str: word, bool: number % 2 == 0}[FIELDS[name]]
            out.append((prompt, json.dumps(record, separators=(",", ":"))))
        return out

    def _names(self, rng: np.random.Generator) -> list[str]:
        names = list(FIELDS)
        return [names[i] for i in rng.permutation(len(names))[: int(rng.integers(1, self.fields + 1))]]

    def _read(self, episode: Episode) -> tuple[list[tuple[str, Any]] | None, int]:
        """Read the members of the object, duplicates included; None where it is none, and then the token that broke it."""
        last = len(episode.ids) - 1
        if episode.ended_by != "eos":
            return None, last
        try:
            value = json.loads(episode.text, object_pairs_hook=_Members)
        except json.JSONDecodeError as error:
            return None, episode.token_at(error.pos) if error.pos < len(episode.text) else last
        except (ValueError, RecursionError):  # a number of too many digits, or nested too deep
            return None, last
        return (value if isinstance(value, _Members) else None), last

    def _reward(self, episode: Episode) -> npt.NDArray[np.float64]:
        paid = np.zeros(len(episode.ids))
        members, broken = self._read(episode)
        if members is None:
            paid[broken] = -1.0
        elif self.reward == "scalar":
            paid[-1] = float(self.success(episode))
        else:
            asked = _asked(episode.prompt)
            names = {name for name, _ in members}
            for name in sorted(names):
                part = json_field(episode, name)
                assert part is not None  # the text is an object that has the name
                right = name in asked and _is_right(members, name)
                paid[episode.agent_tokens(*part)[-1]] += (1 if right else -1) / len(asked)
            paid[-1] -= len(set(asked) - names) / len(asked)
        return paid


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object, in order, duplicates included."""


def _asked(prompt: Prompt) -> list[str]:
    return prompt.text.removesuffix(">").split(",")


def _is_right(members: Sequence[tuple[str, Any]], name: str) -> bool:
    values = [value for key, value in members if key == name]
    return len(values) == 1 and type(values[0]) is FIELDS[name]
