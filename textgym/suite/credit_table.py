"""The credit of every assigner on every probe, against the exact truth (``textgym.exact``): no agent, nobody learns.

Left out on purpose: the measure itself, which is ``textgym.exact``'s; here is who is measured, and what a seed is: a policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.assign import resolve_assigner
from textgym.credit import Attention, Discounted, KeepLast, Last, LeaveOneOut, MonteCarlo, PrefixDifference, Shapley, Uniform
from textgym.episode import Episode
from textgym.exact import Enumeration, Floats, Returns, credit_error
from textgym.suite.setting import Setting
from textgym.task import resolve_task

EXACT = "exact"
"""The name that stands in the place of an agent where credit is measured."""


def _monte_carlo(texts: Enumeration, logits: Floats) -> MonteCarlo:
    return MonteCarlo(continuations=texts.continuations(logits))


def _looks(episodes: Sequence[Episode]) -> list[npt.NDArray[np.floating]]:
    """Look anywhere, at random but always alike."""
    return [1.0 + (episode.ids * 7 % 5) for episode in episodes]


CONTESTANTS: Mapping[str, tuple[Callable[[Enumeration, Floats], Any], Returns]] = {
    "task's rewards": (lambda texts, logits: None, "reward_to_go"),
    "last": (lambda texts, logits: Last(), "reward_to_go"),
    "uniform": (lambda texts, logits: Uniform(), "reward_to_go"),
    "uniform, whole stream": (lambda texts, logits: Uniform(), "whole_stream"),
    "uniform, half kept last": (lambda texts, logits: KeepLast(Uniform()), "reward_to_go"),
    "discounted .9": (lambda texts, logits: Discounted(0.9), "reward_to_go"),
    "prefix_difference": (lambda texts, logits: PrefixDifference(), "reward_to_go"),
    "prefix_difference, own token": (lambda texts, logits: PrefixDifference(), "token"),
    "leave_one_out": (lambda texts, logits: LeaveOneOut(), "reward_to_go"),
    "leave_one_out, whole stream": (lambda texts, logits: LeaveOneOut(), "whole_stream"),
    "shapley": (lambda texts, logits: Shapley(), "reward_to_go"),
    "shapley, own token": (lambda texts, logits: Shapley(), "token"),
    "shapley, whole stream": (lambda texts, logits: Shapley(), "whole_stream"),
    "attention (random)": (lambda texts, logits: Attention(_looks, beta=1.0), "reward_to_go"),
    "monte_carlo, k 4": (_monte_carlo, "reward_to_go"),
    "monte_carlo, k 4, own token": (_monte_carlo, "token"),
}
"""Name -> the assigner for a probe and a policy (None: the task's own rewards), and what a token is credited with."""


def contestant(reward: str) -> tuple[Callable[[Enumeration, Floats], Any], Returns]:
    """Find who is measured: a name of ``CONTESTANTS``, or an assigner's (short name or "module:Name"), with reward-to-go.

    Raises:
        ValueError: nothing has that name.
    """
    if reward in CONTESTANTS:
        return CONTESTANTS[reward]
    try:
        assigner = resolve_assigner(reward)
    except ValueError as error:
        raise ValueError(f"{error}; and for the probes {', '.join(map(repr, CONTESTANTS))}") from None
    return lambda texts, logits: assigner, "reward_to_go"


def measure(setting: Setting, seed: int) -> dict[str, float | None]:
    """Measure one assigner on one task for the random policy of ``seed``.

    Args:
        setting: its ``options`` may hold ``rows``, what a policy looks at: "history" (default) or "position".
        seed: of the policy's logits, which are normal with deviation 1.

    Returns:
        the fields of ``textgym.exact.CreditError``; None for what is not defined.
    """
    make, returns = contestant(setting.reward)
    texts = Enumeration(resolve_task(setting.task, **setting.task_args), setting.options.get("rows", "history"))
    logits = texts.random_logits(seed)
    error = asdict(credit_error(texts, logits, make(texts, logits), returns))
    return {name: value if math.isfinite(value) else None for name, value in error.items()}
