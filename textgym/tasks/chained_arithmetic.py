"""Chained arithmetic: reach a number by steps; a step is judged by whether the answer at the end came from it.

Left out on purpose: a judge of single steps. Every step here may be true and well-formed and still be worth nothing: what it
was good for is decided by the steps after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_LARGEST = 99
_NUMBER = "(0|[1-9][0-9]?)"
_STEP = re.compile(rf"{_NUMBER}([-+*]){_NUMBER}={_NUMBER};")
_OPEN_STEP = re.compile(rf"(?:{_NUMBER}(?:[-+*](?:{_NUMBER}(?:=(?:{_NUMBER};?)?)?)?)?)?")
_LONGEST_STEP = len("99+99=99;")


class Step(NamedTuple):
    """One step of a chain: a range of characters, and what it computes from what."""

    start: int
    """First character."""
    end: int
    """One past the last character."""
    operands: tuple[int, int]
    """The two numbers."""
    result: int
    """What they come to."""


class ChainedArithmetic(Task):
    """Reach a target by true steps from given numbers; the steps that the answer came from share a constant mass.

    Description:
        The prompt has some numbers and a target, ``2,3,4>14:``. The response is a chain of steps, ``3+4=7;7*2=14;``. A step
        takes two numbers that were given or that earlier steps made, any of them as often as it likes, and adds, multiplies
        or subtracts. The answer is the result of the last step.

    Prompt:
        ``numbers`` numbers from 1 to ``largest``, and a target, none of them, that 2 to ``steps`` random steps led to.

    Action space:
        One token of the built-in tokenizer: begin-of-text, end-of-text, digits, ``+ - * = ; , > :``.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        Where the answer is the target, a mass of 1 is divided evenly among the steps that it came from: the last one, the steps
        that made its numbers, and so on back (a number is traced to the prompt if it is given there, else to the first step
        that made it). Every other step was wasted and pays ``-waste``. So ``3+4=7;`` earns a half in ``3+4=7;7*2=14;`` and
        pays in ``3+4=7;2*4=8;8+3=11;``: no step is decided before the end. Where the answer is another number, nothing is
        paid. Each step is paid on its ``;``. ``reward="scalar"`` pays 1 on the last token where the answer is the target, else
        0. In both forms a text that breaks off or has a false step (wrong result, a number that is not there, one step too
        many) pays only -1, on the token that broke it. One stream: later steps build on the earlier ones.

    Episode end:
        End-of-text, or the room that ``steps`` steps take.

    Score:
        Share of texts whose answer is the target.

    Arguments:
        numbers: how many numbers are given.
        largest: the largest that may be given, up to 9.
        steps: most steps.
        waste: what a step costs that the answer did not come from.
        reward: "dense" or "scalar".
        tokenizer: default: the built-in one.

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        numbers: int = 3,
        largest: int = 5,
        steps: int = 3,
        waste: float = 0.1,
        reward: Literal["dense", "scalar"] = "dense",
        tokenizer: Any = None,
    ) -> None:
        if numbers < 2 or not 2 <= largest <= 9 or steps < 2:
            raise ValueError(
                f"numbers is {numbers}, largest {largest}, steps {steps}; give at least 2 numbers, a largest from 2 to 9, and "
                "at least 2 steps"
            )
        if not waste >= 0:
            raise ValueError(f"waste is {waste}; it must be at least 0")
        if reward not in ("dense", "scalar"):
            raise ValueError(f"reward is {reward!r}; allowed are 'dense' and 'scalar'")
        self.numbers, self.largest, self.steps, self.waste, self.reward = numbers, largest, steps, waste, reward
        self.tokenizer = symbol_tokenizer(list("0123456789+-*=;,>:")) if tokenizer is None else TextTokenizer(tokenizer)
        self.max_prompt_tokens = 2 * numbers + 4
        self.max_new_tokens = _LONGEST_STEP * steps + 1

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw numbers and a target that can be reached."""
        return self._draw(rng)[0]

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give one number per token; see the datasheet."""
        return [self._reward(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether the answer is the target."""
        chain, broken = self.read(episode)
        return broken is None and bool(chain) and chain[-1].result == episode.prompt.metadata["target"]

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Share of true chains; over those that reach the target, the mean number of steps and of wasted ones."""
        well_formed = [self.read(episode)[1] is None for episode in episodes]
        reached = [(self.read(e)[0], e.prompt.metadata["numbers"]) for e in episodes if self.success(e)]
        wasted = [np.count_nonzero(~needed(chain, given)) for chain, given in reached]
        return {
            "well_formed": float(np.mean(well_formed)) if episodes else 0.0,
            "steps": float(np.mean([len(chain) for chain, _ in reached])) if reached else float("nan"),
            "wasted": float(np.mean(wasted)) if reached else float("nan"),
        }

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw the random chains that the targets come from; some have steps that are wasted."""
        return [self._draw(rng) for _ in range(count)]

    def read(self, episode: Episode) -> tuple[list[Step], int | None]:
        """Read the true steps from the start of a response, and the token that broke the chain (None: nothing did)."""
        chain: list[Step] = []
        text, position = episode.text, 0
        there = set(episode.prompt.metadata["numbers"])
        while position < len(text):
            match = _STEP.match(text, position)
            if match is None or len(chain) == self.steps:
                opened = _OPEN_STEP.match(text, position)
                at = position if len(chain) == self.steps or opened is None else opened.end()
                return chain, episode.token_at(at) if at < len(text) else len(episode.ids) - 1
            first, operation, second, result = match.groups()
            for group, true in (
                (1, int(first) in there),
                (3, int(second) in there),
                (4, int(result) == _compute(int(first), operation, int(second))),
            ):
                if not true:
                    return chain, episode.token_at(match.end(group) - 1)
            chain.append(Step(*match.span(), (int(first), int(second)), int(result)))
            there.add(int(result))
            position = match.end()
        return chain, None if episode.ended_by == "eos" else len(episode.ids) - 1

    def _reward(self, episode: Episode) -> npt.NDArray[np.float64]:
        paid = np.zeros(len(episode.ids))
        chain, broken = self.read(episode)
        if broken is not None:
            paid[broken] = -1.0
        elif not self.success(episode):
            pass
        elif self.reward == "scalar":
            paid[-1] = 1.0
        else:
            good = needed(chain, episode.prompt.metadata["numbers"])
            for step, is_good in zip(chain, good, strict=True):
                paid[episode.token_at(step.end - 1)] += 1 / np.count_nonzero(good) if is_good else -self.waste
        return paid

    def _draw(self, rng: np.random.Generator) -> tuple[Prompt, str]:
        """Draw numbers, and random steps until the last result is none of them."""
        while True:
            given = rng.integers(1, self.largest + 1, size=self.numbers).tolist()
            there, said = list(given), ""
            for _ in range(int(rng.integers(2, self.steps + 1))):
                first, second = (there[int(i)] for i in rng.integers(len(there), size=2))
                operation = "+-*"[int(rng.integers(3))]
                result = _compute(first, operation, second)
                if not 0 <= result <= _LARGEST:
                    break
                said += f"{first}{operation}{second}={result};"
                there.append(result)
            else:
                if there[-1] not in given:
                    numbers = ",".join(map(str, given))
                    return Prompt(f"{numbers}>{there[-1]}:", metadata={"numbers": tuple(given), "target": there[-1]}), said


def needed(chain: Sequence[Step], given: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Mark the steps that the last one's result came from, itself included; bool (number of steps,).

    A number is traced to ``given`` if it is there, else to the first step that made it.
    """
    marked = np.zeros(len(chain), dtype=np.bool_)
    marked[-1:] = True
    made: dict[int, int] = {}
    for i, step in enumerate(chain):
        made.setdefault(step.result, i)
    wanted = set(chain[-1].operands) if chain else set()
    for i in range(len(chain) - 2, -1, -1):
        if chain[i].result in wanted and chain[i].result not in given and made[chain[i].result] == i:
            marked[i] = True
            wanted |= set(chain[i].operands)
    return marked


def _compute(first: int, operation: str, second: int) -> int:
    if operation == "*":
        return first * second
    return first + second if operation == "+" else first - second
