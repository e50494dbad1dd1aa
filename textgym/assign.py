"""The stage between a task's rewards and the release: where an assigner splits what a text earned over its tokens.

Left out on purpose: the assigners themselves (``credit``). This stage keeps criteria, streams and the ledger, whatever the
assigner does.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textgym.credit import ASSIGNERS, Assigner, bind
from textgym.episode import Episode
from textgym.names import check_arguments, resolve_name
from textgym.rewards import Resolved, check_ledger, resolve
from textgym.task import Task


@dataclass(frozen=True)
class TaskScore:
    """A task's rewards of a text, weighted and added up; a class and no closure, so that it can be pickled."""

    task: Task

    def __call__(self, episodes: Sequence[Episode]) -> list[float]:
        """Score the episodes; parts of texts too, where the task can judge them."""
        resolved = resolve(self.task.rewards(episodes), episodes, self.task.weights)
        return [float(item.token_rewards.sum(dtype=np.float64)) for item in resolved]


def resolve_assigner(assigner: Any) -> Any:
    """Turn a short name, ``"module:Name"``, a class or an object into an ``Assigner``; None stays None.

    Raises:
        ValueError: nothing has that name, or it needs arguments.
        TypeError: the object is no assigner.
    """
    if assigner is None:
        return None
    if isinstance(assigner, str):
        if assigner not in ASSIGNERS and ":" not in assigner:
            raise ValueError(f"there is no assigner {assigner!r}; there are {', '.join(ASSIGNERS)}, and 'module:Name'")
        assigner = ASSIGNERS[assigner] if assigner in ASSIGNERS else resolve_name(assigner)
    if inspect.isclass(assigner):
        check_arguments(assigner)
        assigner = assigner()
    missing = [name for name in ("causal", "conserves") if not isinstance(getattr(assigner, name, None), bool)]
    if missing or not callable(assigner):
        raise TypeError(
            f"{type(assigner).__name__} is not an assigner: it is called with scores and episodes, and declares causal and "
            f"conserves as True or False (here {missing or 'it cannot be called'}); see textgym.credit.Assigner"
        )
    return assigner


def bind_to_task(assigner: Assigner | None, task: Task) -> Assigner | None:
    """Let an assigner that scores parts of texts, and has no score of its own, ask the task."""
    return None if assigner is None else bind(assigner, TaskScore(task))


def assign(assigner: Assigner, resolved: Sequence[Resolved], episodes: Sequence[Episode]) -> list[Resolved]:
    """Split what each text earned in total over its tokens.

    Returns:
        As ``resolved``, with the assigner's token rewards. What they add up to less or more than the text earned is booked in
        the ledger as "assigner".

    Raises:
        ValueError: an assigner that says that it conserves does not, or pays what ``textgym.rewards`` does not allow.
    """
    scores = [float(item.token_rewards.sum(dtype=np.float64)) for item in resolved]
    split = resolve(list(assigner(scores, episodes)), episodes)
    out = []
    for score, item, shares, episode in zip(scores, resolved, split, episodes, strict=True):
        paid, ledger = shares.token_rewards, item.ledger
        if not assigner.conserves:
            ledger = ledger.take("assigner", score - float(paid.sum(dtype=np.float64)))
        check_ledger(ledger, paid, episode.episode_id)
        out.append(replace(item, token_rewards=paid, ledger=ledger))
    return out
