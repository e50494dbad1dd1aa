"""What an agent is, and the one resolver of agents' names.

Left out on purpose: a base class. Any object with these members is an agent; it owns its loop.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from textgym import resolve_name
from textgym.names import check_arguments
from textgym_agents.guard import check_agent
from textgym_agents.rollout import Policy

AGENTS = {
    "ppo": "textgym_agents.ppo:PPO",
    "reinforce": "textgym_agents.reinforce:Reinforce",
    "rloo": "textgym_agents.rloo:RLOO",
    "grpo": "textgym_agents.rloo:GRPO",
    "best_of_n": "textgym_agents.best_of_n:BestOfN",
    "cloning": "textgym_agents.cloning:Cloning",
    "ilql": "textgym_agents.ilql:ILQL",
    "random": "textgym_agents.random_agent:RandomAgent",
}
"""Short name -> "module:Name" of the shipped agents; others come by "module:Name" or entry point ``textgym.agents``."""


class Agent(Protocol):
    """Something that learns from a vector environment.

    ``textgym train`` makes it as ``Name(policy, seed=seed)``, with the warmed-up language model as ``policy``; an agent may
    learn with that one or with one of its own, as long as ``self.policy`` is what it wants to be judged by. The environment
    is the native vector door under ``AutoresetMode.DISABLED``: ended slots wait for
    ``envs.reset(options={"reset_mask": ended})``; ``collect`` does that.

    Three members are read where an agent has them: ``group_size``, how many slots shall see the same prompts; and
    ``save_state(folder)`` and ``load_state(folder)``, by which a run can be resumed: the first is called from within the
    callback, and a ``learn`` after the second goes on where that ``learn`` stood.
    """

    policy: Policy
    """Plays the evaluation."""

    def learn(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        budget: int,
        callback: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Learn from ``budget`` episodes; call ``callback`` with figures now and then (``episodes`` among them)."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write what ``load`` needs into ``folder``."""
        ...

    def load(self, folder: str | Path) -> None:
        """Read what ``save`` wrote."""
        ...


def find_agent(agent: Any) -> Any:
    """Find what a short name, ``"module:Name"`` or an entry point of the group ``textgym.agents`` names; objects pass.

    Raises:
        ValueError: nothing has that name; says what is there.
    """
    if not isinstance(agent, str):
        return agent
    found = {point.name: point for point in entry_points(group="textgym.agents")}
    if agent in AGENTS or ":" in agent:
        return resolve_name(AGENTS.get(agent, agent))
    if agent not in found:
        close = difflib.get_close_matches(agent, [*AGENTS, *found], n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ";"
        raise ValueError(f"there is no agent {agent!r}{hint} there are {', '.join([*AGENTS, *found])}, and 'module:Name'")
    return found[agent].load()


def resolve_agent(agent: Any, policy: Policy, *, seed: int, **kwargs: Any) -> Agent:
    """Turn a name (see ``find_agent``), a class, a function or an object into an agent.

    Args:
        agent: a class or function is called as ``agent(policy, seed=seed, **kwargs)``; an object is taken as it is.
        policy: what the agent may learn with.
        seed: of whatever the agent draws.
        kwargs: further arguments of the class.

    Raises:
        ValueError: nothing has that name; says what is there.
        TypeError: the object lacks a member of ``Agent``, or its policy one of ``Policy``.
    """
    agent = find_agent(agent)
    if inspect.isclass(agent) or inspect.isfunction(agent):
        check_arguments(agent, policy, seed=seed, **kwargs)
        agent = _make(agent, policy, seed=seed, **kwargs)
    check_agent(agent)
    return agent


def _make(factory: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return factory(*args, **kwargs)
