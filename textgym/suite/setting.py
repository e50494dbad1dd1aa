"""Settings of the benchmark suite as data: task, reward form or assigner, agent, budget; each is run for several seeds.

Left out on purpose: running them. Agents are names here and options a mapping; ``textgym_agents.suite`` knows what they mean.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What is run, but for the seed. Equal settings have equal keys."""

    task: str
    """Environment id, short name or "module:Name"."""
    reward: str
    """A name of ``textgym.suite.reward_forms``, or an assigner's: short name or "module:Name"."""
    agent: str
    """Short name, "module:Name" or entry point. "exact": the credit is measured, and nobody learns."""
    episodes: int
    """The budget."""
    task_args: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the task's constructor."""
    agent_args: Mapping[str, Any] = field(default_factory=dict)
    """Options of the agent."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of a run: model, warm-up, evaluation."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes is {self.episodes}; it must be at least 1")
        try:
            json.dumps(asdict(self), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a setting is written as JSON, and this one cannot be: {error}") from None

    @property
    def key(self) -> str:
        """Name the setting by what it says: 12 hexadecimal digits of SHA-256 of its JSON with sorted names."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def task_name(self) -> str:
        """Name the task and its arguments, in print."""
        args = ", ".join(f"{name}={value}" for name, value in sorted(self.task_args.items()))
        return f"{self.task}({args})" if args else self.task

    @property
    def contestant(self) -> str:
        """Name what is compared on a task: agent and reward."""
        return f"{self.agent}, {self.reward}"


@dataclass(frozen=True)
class Block:
    """Settings that differ in reward and agent only: the product of both."""

    task: str
    """As ``Setting.task``."""
    rewards: Sequence[str]
    """Reward forms and assigners."""
    agents: Sequence[str]
    """Names of agents."""
    episodes: int
    """The budget of each."""
    task_args: Mapping[str, Any] = field(default_factory=dict)
    """As ``Setting.task_args``."""
    agent_args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of an agent -> its options."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """As ``Setting.options``."""

    def __post_init__(self) -> None:
        for name in ("rewards", "agents"):
            given = getattr(self, name)
            if isinstance(given, str) or not given or not all(isinstance(each, str) for each in given):
                raise ValueError(f"{name} of the block of {self.task} is {given!r}; give a list of names")
        if unknown := sorted({*self.agent_args} - {*self.agents}):
            raise ValueError(f"agent_args of the block of {self.task} has {', '.join(unknown)}, which is none of its agents")

    def settings(self) -> list[Setting]:
        """List the product."""
        return [
            Setting(self.task, reward, agent, self.episodes, self.task_args, self.agent_args.get(agent, {}), self.options)
            for agent, reward in itertools.product(self.agents, self.rewards)
        ]


@dataclass(frozen=True)
class Group:
    """A suite: blocks, and for how many seeds."""

    name: str
    """In print, and of the folder of its rows."""
    about: str
    """What it is, in a line."""
    seeds: int
    """Each setting is run for seeds 0, 1, ..."""
    blocks: Sequence[Block]
    """What is run."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}; it must be at least 1")
        if not self.blocks:
            raise ValueError(f"the group {self.name!r} has no blocks, so there is nothing to run")

    def settings(self) -> list[Setting]:
        """List the settings, each once."""
        return list({setting.key: setting for block in self.blocks for setting in block.settings()}.values())

    def runs(self) -> Iterator[tuple[Setting, int]]:
        """Give setting and seed of each run; all settings have one seed before any has a second."""
        yield from ((setting, seed) for seed in range(self.seeds) for setting in self.settings())

    def narrowed(
        self,
        tasks: Sequence[str] = (),
        rewards: Sequence[str] = (),
        agents: Sequence[str] = (),
        seeds: int | None = None,
        episodes: int | None = None,
    ) -> Group:
        """Put other names in the places of the group's own; what is empty or None stays.

        Args:
            tasks: a task that the group has keeps its blocks, another gets those of the first task with their task replaced.
            rewards: in all blocks.
            agents: in all blocks.
            seeds: number of seeds.
            episodes: budget of all blocks.
        """
        blocks: list[Block] = []
        for task in tasks or dict.fromkeys(block.task for block in self.blocks):
            own = [block for block in self.blocks if block.task == task]
            first = [block for block in self.blocks if block.task == self.blocks[0].task]
            blocks += own or [replace(block, task=task, task_args={}) for block in first]
        if agents:  # options of agents that are not there any more would be refused
            kept = [{name: args for name, args in block.agent_args.items() if name in agents} for block in blocks]
            blocks = [replace(block, agents=agents, agent_args=args) for block, args in zip(blocks, kept, strict=True)]
        changes = {name: value for name, value in {"rewards": rewards, "episodes": episodes}.items() if value}
        blocks = [replace(block, **changes) for block in blocks]
        return replace(self, blocks=tuple(blocks), seeds=self.seeds if seeds is None else seeds)
