"""Assigners that ask the policy that learns: its attention, or texts that it goes on to write. ``train`` hands it to them.

Left out on purpose: how weights are read and texts gone on with (``attention_credit``, ``continuations``), and any state of its
own: what is drawn depends on the texts and the weights, so that a resumed run draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from textgym import Episode
from textgym.assign import resolve_assigner
from textgym.credit import Attention, MonteCarlo
from textgym.credit.attention import Weights
from textgym.credit.monte_carlo import Continuations
from textgym_agents.attention_credit import AttentionWeights
from textgym_agents.continuations import PolicyContinuations
from textgym_agents.policy import CausalLMPolicy

Asked = TypeVar("Asked")
_SLOTS = 64


class _Later(Generic[Asked]):
    """What is there once a policy is."""

    def __init__(self) -> None:
        self.asked: Asked | None = None

    def __deepcopy__(self, memo: object) -> _Later[Asked]:
        return self  # an environment's spec copies its arguments; the policy is not one of them

    def ready(self) -> Asked:
        """Give it.

        Raises:
            ValueError: no policy was handed over.
        """
        if self.asked is None:
            raise ValueError(
                "the assigner asks the policy that learns, and has none; textgym train hands it over, and so does "
                "assigner.bind_policy(policy, task)"
            )
        return self.asked


class _LaterWeights(_Later[AttentionWeights]):
    def __call__(self, episodes: Sequence[Episode]) -> list[npt.NDArray[np.float64]]:
        return self.ready()(episodes)


class _LaterContinuations(_Later[PolicyContinuations]):
    def __call__(self, episodes: Sequence[Episode], k: int) -> list[list[Episode]]:
        ready = self.ready()
        assert isinstance(ready.policy, CausalLMPolicy)
        said = hashlib.sha256(b"".join(episode.ids.astype("<i8").tobytes() for episode in episodes)).digest()
        ready.policy.reseed(int.from_bytes(said[:7], "little"))
        return ready(episodes, k)


@dataclass(frozen=True)
class PolicyAttention(Attention):
    """``Attention`` with the weights of the policy that learns, as it stands when a text is released."""

    weights: Weights = field(default_factory=_LaterWeights)

    def bind_policy(self, policy: CausalLMPolicy, task: Any) -> None:
        """Read this policy's attention from now on."""
        assert isinstance(self.weights, _Later)
        self.weights.asked = AttentionWeights(policy.model.lm)


@dataclass(frozen=True, eq=False)
class PolicyMonteCarlo(MonteCarlo):
    """``MonteCarlo`` with continuations by the policy that learns, at its own temperature; learn with ``gamma = 0``, or not.

    The continuations of a batch are drawn by a seed made of its tokens.
    """

    continuations: Continuations | None = field(default_factory=_LaterContinuations)

    def bind_policy(self, policy: CausalLMPolicy, task: Any) -> None:
        """Let this policy go on with texts of the task from now on."""
        assert isinstance(self.continuations, _Later)
        sampling = policy.sampling
        own = CausalLMPolicy(policy.model, _SLOTS, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
        self.continuations.asked = PolicyContinuations(own, task, _SLOTS)


POLICY_ASSIGNERS: Mapping[str, type[PolicyAttention] | type[PolicyMonteCarlo]] = {
    "attention": PolicyAttention,
    "monte_carlo": PolicyMonteCarlo,
}
"""Short name -> assigner that asks the policy that learns; those that ask none are ``textgym.credit.ASSIGNERS``."""


def make_assigner(name: Any) -> Any:
    """Turn a short name of either kind, or what ``textgym.assign.resolve_assigner`` takes, into an assigner."""
    if isinstance(name, str) and name in POLICY_ASSIGNERS:
        return POLICY_ASSIGNERS[name]()
    try:
        return resolve_assigner(name)
    except ValueError as error:
        error.add_note(f"there are also {', '.join(POLICY_ASSIGNERS)}, which ask the policy that learns")
        raise


def bind_policy(task: Any, policy: CausalLMPolicy) -> None:
    """Hand a task's assigner the policy, where it asks for one."""
    if bind := getattr(getattr(task, "assigner", None), "bind_policy", None):
        bind(policy, task)
