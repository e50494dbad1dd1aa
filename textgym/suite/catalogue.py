"""The groups of settings that are shipped: ``tiny``, ``standard``, ``finding`` and ``probes``.

Left out on purpose: what a name means to a runner. A user's own group is a file (``group_file``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgym.suite.credit_table import CONTESTANTS, EXACT
from textgym.suite.setting import Block, Group

FORMS = ("scalar", "dense", "streams")

_TINY_MODEL: Mapping[str, Any] = {"layers": 1, "width": 32, "heads": 2, "num_slots": 64, "eval_episodes": 256}
_TINY_PPO: Mapping[str, Any] = {"episodes_per_update": 64, "minibatch_episodes": 32}
_MODEL: Mapping[str, Any] = {"layers": 2, "width": 64, "heads": 4, "num_slots": 128, "episodes_per_update": 128}
_ASSIGNED = ("scalar", "dense", "uniform", "prefix_difference", "leave_one_out")
_SPLITS = ("uniform", "discounted", "prefix_difference", "leave_one_out", "attention")
_WIDER: Mapping[str, Any] = {**_TINY_MODEL, "width": 64, "heads": 4}
_PROBES = dict.fromkeys(("decisive", "joint", "distractors", "reply", "length"), "history") | {
    "streams": "position",
    "duel": "position",
}


def _small(
    task: str,
    rewards: tuple[str, ...],
    episodes: int,
    warmup: int,
    ppo: Mapping[str, Any] | None = None,
    task_args: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] = _TINY_MODEL,
) -> Block:
    ppo = {**_TINY_PPO, "learning_rate": 1e-3, **(ppo or {})}
    return Block(task, rewards, ("ppo",), episodes, task_args or {}, {"ppo": ppo}, {**model, "warmup_steps": warmup})


GROUPS: Mapping[str, Group] = {
    "tiny": Group(
        "tiny",
        "whether it learns, and what the form of the reward does, in minutes",
        seeds=4,
        blocks=(
            Block(
                "copying",
                ("scalar", "dense", "uniform", "prefix_difference", "leave_one_out", "shapley"),
                ("ppo",),
                2560,
                task_args={"length": 3, "alphabet": 4},
                agent_args={"ppo": {**_TINY_PPO, "epochs": 4, "learning_rate": 3e-3}},
                options={**_TINY_MODEL, "warmup_steps": 0},
            ),
            Block(
                "number_duel",
                (*FORMS, "sequential"),
                ("ppo",),
                1920,
                agent_args={"ppo": {**_TINY_PPO, "learning_rate": 1e-3}},
                options={**_TINY_MODEL, "warmup_steps": 150},
            ),
        ),
    ),
    "standard": Group(
        "standard",
        "forms of the reward, assigners and agents on six tasks",
        seeds=3,
        blocks=(
            Block("number_duel", (*FORMS, "sequential"), ("ppo", "reinforce", "rloo"), 5120, options=_MODEL),
            Block("three_sentences", (*FORMS, "sequential"), ("ppo", "reinforce", "rloo"), 5120, options=_MODEL),
            Block(
                "copying",
                (*_ASSIGNED, "shapley"),
                ("ppo",),
                7680,
                task_args={"length": 4, "alphabet": 6},
                agent_args={"ppo": {"epochs": 4, "learning_rate": 2e-3}},
                options={**_MODEL, "warmup_steps": 0},
            ),
            Block("brackets", _ASSIGNED, ("ppo",), 5120, options={**_MODEL, "warmup_steps": 60}),
            Block("chained_arithmetic", _ASSIGNED, ("ppo",), 5120, options=_MODEL),
            Block("random_walks", _ASSIGNED, ("ppo",), 2800, {"reward": "dense"}),
        ),
    ),
    "finding": Group(
        "finding",
        "what the form of the reward does, on every learning task at a size that learns in seconds",
        seeds=10,
        blocks=(
            _small("number_duel", (*FORMS, "sequential", *_SPLITS), 1920, warmup=150),
            _small("three_sentences", (*FORMS, "sequential", *_SPLITS), 1920, warmup=150),
            _small("turn_duel", ("scalar", "dense", *_SPLITS), 1920, warmup=150),
            _small(
                "copying",
                ("scalar", "dense", *_SPLITS, "shapley", "monte_carlo"),
                2560,
                warmup=0,
                ppo={"epochs": 4, "learning_rate": 3e-3},
                task_args={"length": 3, "alphabet": 4},
            ),
            _small(
                "copying",
                ("dense",),
                2560,
                warmup=0,
                ppo={"epochs": 4, "learning_rate": 3e-3, "gamma": 0.0},
                task_args={"length": 3, "alphabet": 4},
            ),
            _small("brackets", ("scalar", "dense", *_SPLITS, "shapley", "monte_carlo"), 1920, warmup=40),
            _small("brackets", ("dense",), 1920, warmup=40, ppo={"gamma": 0.0}),
            _small(
                "random_walks", ("scalar", "dense", *_SPLITS, "monte_carlo"), 2560, warmup=300, task_args={"reward": "dense"}
            ),
            _small("random_walks", ("dense",), 2560, warmup=300, ppo={"gamma": 0.0}, task_args={"reward": "dense"}),
            _small("guess_number", ("scalar", "dense", *_SPLITS), 2560, warmup=150),
            _small("sentiment", ("scalar", "dense", *_SPLITS), 1920, warmup=150),
            _small(
                "json_record",
                ("scalar", "dense", *_SPLITS),
                1920,
                warmup=200,
                ppo={"learning_rate": 5e-4},
                task_args={"fields": 1},
                model=_WIDER,
            ),
            _small(
                "chained_arithmetic",
                ("scalar", "dense", *_SPLITS),
                1920,
                warmup=250,
                ppo={"learning_rate": 5e-4},
                task_args={"numbers": 2, "largest": 3, "steps": 2},
                model=_WIDER,
            ),
        ),
    ),
    "probes": Group(
        "probes",
        "credit of each assigner against the exact truth, on tasks that can be counted out",
        seeds=5,
        blocks=tuple(
            Block(f"probe_{name}", tuple(CONTESTANTS), (EXACT,), 1, options={"rows": rows}) for name, rows in _PROBES.items()
        ),
    ),
}
"""Name -> group."""
