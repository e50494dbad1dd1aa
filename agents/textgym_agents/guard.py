"""What an agent from outside does wrong, said with its name: checks of steps, figures and budgets.

Left out on purpose: mending. Nothing is cast, clipped or made up for; what is allowed is said, and the run folder is kept.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from textgym.info import endings
from textgym_agents.ahead import Ahead, Running
from textgym_agents.policy import CausalLMPolicy, Following, Step


class AgentError(ValueError):
    """An agent or policy broke the protocol."""


def name_of(thing: Any) -> str:
    """Give ``module:Name`` of an object's class, or of a class or function."""
    kind = thing if inspect.isclass(thing) or inspect.isfunction(thing) else type(thing)
    return f"{kind.__module__}:{kind.__qualname__}"


def check_agent(agent: Any) -> None:
    """Raise TypeError where an object lacks what an agent must have, naming it and all that is missing."""
    missing = [member for member in ("policy", "learn", "save", "load") if not hasattr(agent, member)]
    missing += [f"{member}()" for member in ("learn", "save", "load") if not callable(getattr(agent, member, print))]
    if missing:
        raise TypeError(
            f"{name_of(agent)} is not an agent: it lacks {', '.join(missing)}; an agent has policy, learn(envs, budget, "
            "callback), save(folder) and load(folder)"
        )
    try:
        inspect.signature(agent.learn).bind(None, 1, None)
    except TypeError as error:
        raise TypeError(f"learn of {name_of(agent)}: {error}; it is called as learn(envs, budget, callback)") from None
    except ValueError:  # a callable without a signature: calling it will tell
        return


def check_policy(agent: Any) -> None:
    """Raise TypeError where what an agent wants to be judged by is no policy."""
    missing = [member for member in ("act", "reset_slots") if not callable(getattr(agent.policy, member, None))]
    if missing:
        raise TypeError(
            f"the policy of the agent {name_of(agent)} is {_kind(agent.policy)}, which lacks {' and '.join(missing)}; a policy "
            "has act(obs, slots) -> Step(tokens, logprobs, values) and reset_slots(slots)"
        )


def act(policy: Any, obs: Any, slots: Any, vocab_size: int, **told: Any) -> Step:
    """Let a policy act, and check what it did; ``CausalLMPolicy`` checks itself.

    Args:
        policy: any ``Policy``.
        obs: int64 (n, context_length).
        slots: n of them.
        vocab_size: V.
        told: what a policy that takes it is told: ``lengths``, ``allowed``, ``ahead``.

    Raises:
        AgentError: the step is none; names the policy, what it gave, and what is allowed.
        Exception: what ``act`` raised, with a note that names the policy.
    """
    try:
        step = policy.act(obs, slots, **told)
    except Exception as error:
        if not isinstance(policy, CausalLMPolicy):
            error.add_note(f"raised by act of the policy {name_of(policy)}, for slots {_few(np.asarray(slots))}")
        raise
    if isinstance(policy, CausalLMPolicy):
        return step
    device = obs.device if isinstance(obs, torch.Tensor) else None
    check_step(step, len(slots), vocab_size, name_of(policy), device)
    if getattr(step, "following", ()):
        check_following(step, np.asarray(slots), told.get("ahead"), vocab_size, name_of(policy), device)
    following = tuple(Following(each.slots, *_copies(each)) for each in getattr(step, "following", ()))
    return Step(*_copies(step), following)


def _copies(step: Step | Following) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Copy what is kept: it may use its tensors again."""
    return step.tokens, step.logprobs.detach().clone(), step.values.detach().clone()


def check_following(
    step: Step, slots: np.ndarray, ahead: Ahead | None, vocab_size: int, who: str, device: torch.device | None = None
) -> None:
    """Raise AgentError where the steps that follow ``step`` are not those that the environment would ask for.

    Args:
        step: a right step of ``slots``.
        slots: int64 (n,).
        ahead: what the policy was told; None: nothing.
        vocab_size: V.
        who: named in the error.
        device: as for ``check_step``.
    """
    said = f"act of the policy {who} gave"
    if ahead is None:
        raise AgentError(f"{said} {len(step.following)} following steps but was not told ahead; allowed are none then")
    running, before = Running(ahead), step.tokens
    for number, each in enumerate(step.following, 1):
        stay = running.after(before.tolist())
        if stay is None:
            raise AgentError(
                f"{said} {len(step.following)} following steps, but of step {number} only the environment knows what it is; "
                "allowed are steps up to a token of ahead.pausing, the end of ahead.texts texts, or a limit that pauses"
            )
        slots = slots[list(stay)]
        if not np.array_equal(each.slots, slots):
            raise AgentError(
                f"{said} a following step {number} of slots {_few(np.asarray(each.slots))}; allowed is one of the slots whose "
                f"texts go on, in their order: {_few(slots)}"
            )
        check_step(each, len(slots), vocab_size, who, device)
        before = each.tokens


def check_step(step: Any, n: int, vocab_size: int, who: str, device: torch.device | None = None) -> None:
    """Raise AgentError where ``step`` is not a step of n slots.

    Args:
        step: what ``act`` returned.
        n: slots that it was asked for.
        vocab_size: V.
        who: named in the error.
        device: where the observation lives; tokens live there too, so that no step copies between devices. None: anywhere.
    """
    said = f"act of the policy {who} gave"
    allowed = f"allowed is Step(tokens int64 ({n},), logprobs float32 ({n},), values float32 ({n},)) for {n} slots"
    for name in ("tokens", "logprobs", "values"):
        tensor = getattr(step, name, None)
        if not isinstance(tensor, torch.Tensor):
            raise AgentError(f"{said} {_kind(step)} whose {name} is {_kind(tensor)}; {allowed}, tensors all three")
        floats = tensor.dtype.is_floating_point
        if tensor.shape != (n,) or (floats if name == "tokens" else not floats):
            raise AgentError(f"{said} {name} of shape {tuple(tensor.shape)} and dtype {tensor.dtype}; {allowed}")
        if name == "tokens" and tensor.dtype != torch.int64:
            raise AgentError(f"{said} tokens of dtype {tensor.dtype}; {allowed}: tokens.to(torch.int64)")
        if device is not None and tensor.device != device:
            raise AgentError(f"{said} {name} on {tensor.device} but the observation is on {device}; {allowed}, on {device}")
    bad = (step.tokens < 0) | (step.tokens >= vocab_size)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise AgentError(
            f"{said} the token {int(step.tokens[at])} for row {at}; allowed are token ids 0..{vocab_size - 1}: mask the logits "
            "beyond the vocabulary"
        )
    for name in ("logprobs", "values"):
        bad = ~torch.isfinite(getattr(step, name))
        if bad.any():
            at = int(bad.nonzero()[0])
            raise AgentError(
                f"{said} {name} that are {float(getattr(step, name)[at])} for row {at}; they must be finite: look whether the "
                "logits or the weights are NaN"
            )


def check_figures(figures: Any, who: str) -> None:
    """Raise AgentError where what an agent told its callback is no Mapping of names to numbers with ``episodes`` in it."""
    said = f"the agent {who} called callback with"
    if not isinstance(figures, Mapping):
        raise AgentError(f"{said} {_kind(figures)}; give a dict of figures, such as {{'episodes': 256}}")
    for name, value in figures.items():
        if not isinstance(name, str) or not isinstance(value, Real):
            raise AgentError(
                f"{said} {name!r}: {value!r}, a {type(value).__name__}; figures are real numbers by name: float(x) or x.item()"
            )
    episodes = figures.get("episodes")
    if episodes is None or not math.isfinite(episodes) or episodes < 0:
        raise AgentError(f"{said} episodes {episodes!r}; tell how many episodes were learned from so far")


class Metered(gym.vector.VectorWrapper):
    """Counts the episodes that end in an environment, and ends an agent's learning that runs away.

    Args:
        env: the environment.
        budget: episodes that the agent was given. It may be in whole collections, with texts carried over, so that twice the
            budget and one text per slot may end; then its ``learn`` is not going to stop by itself.
        who: the agent, named in the error.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], budget: int, who: str) -> None:
        super().__init__(env)
        self.budget = budget
        self.who = who
        self.ended = 0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and count.

        Raises:
            AgentError: too many episodes have ended.
        """
        return self._counted(self.env.step(actions))

    def step_many(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take several steps, and count; see ``TextGenVectorEnv.step_many`` and ``step``."""
        return self._counted(self.env.step_many(actions))  # type: ignore[attr-defined]

    def _counted(self, out: tuple[Any, Any, Any, Any, dict[str, Any]]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.ended += len(endings(out[4]))
        if self.ended > 2 * self.budget + self.num_envs:
            raise AgentError(
                f"the agent {self.who} was given a budget of {self.budget} episodes and has played {self.ended}; allowed are "
                f"{2 * self.budget + self.num_envs}, which has room for whole collections: its learn must return when "
                "the budget is used"
            )
        return out


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _few(slots: Sequence[int] | np.ndarray) -> str:
    return ", ".join(map(str, slots[:8])) + (", ..." if len(slots) > 8 else "")
