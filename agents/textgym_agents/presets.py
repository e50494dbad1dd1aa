"""Settings per shipped task: the defaults of ``textgym train`` where that task is asked for.

Left out on purpose: settings of users' tasks, which start from ``TrainConfig``'s own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgym import resolve_name
from textgym.task import find_task
from textgym.tasks import TASKS
from textgym_agents.agent import find_agent
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.train import TrainConfig

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "random_walks": {
        "layers": 6,
        "width": 144,
        "heads": 12,
        "warmup_steps": 400,  # 8 passes over the 1,000 offline walks
        "warmup_batch": 20,
        "warmup_draw": 1000,
        "warmup_learning_rate": 2e-3,
        "num_slots": 70,
        "updates": 40,
        "eval_episodes": 1000,
        "ppo": PPOConfig(episodes_per_update=70, minibatch_episodes=35, epochs=3, learning_rate=3e-4),
    }
}
"""Short name of a shipped task -> what differs from ``TrainConfig``'s defaults. A task that is not here takes those."""


def preset(task: Any, **changes: Any) -> TrainConfig:
    """Give the settings that a shipped task is trained with, by whatever name it is called.

    Args:
        task: environment id, short name, "module:Name", class or object.
        changes: fields of ``TrainConfig`` that shall differ.

    Raises:
        ValueError: nothing has that name.
    """
    settings = dict(PRESETS.get(short_name(task) or "", {}))
    if (
        "ppo" in settings and find_agent(changes.get("agent", "ppo")) is not PPO
    ):  # an agent of its own kind reads the budget only
        settings["ppo"] = PPOConfig(episodes_per_update=settings["ppo"].episodes_per_update)
    return TrainConfig(task=task, **settings | changes)


def short_name(task: Any) -> str | None:
    """Find under which short name a task is shipped; None where it is not one of the shipped classes."""
    found = find_task(task)[0] if isinstance(task, str) else task
    return next((name for name, target in TASKS.items() if resolve_name(target) in (found, type(found))), None)
