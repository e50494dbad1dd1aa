"""One run of the benchmark suite: a setting and a seed, to what the row of it holds.

Left out on purpose: rows of other runs, and the file they stand in, which are ``suite``'s.
"""

from __future__ import annotations

import platform
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from textgym import Episode, RewardForm, Task
from textgym.assign import resolve_assigner
from textgym.suite.credit_table import EXACT, contestant, measure
from textgym.suite.reward_forms import REWARD_FORMS, in_form
from textgym.suite.setting import Setting
from textgym_agents.agent import find_agent
from textgym_agents.agent_config import options as options_of
from textgym_agents.policy_credit import make_assigner
from textgym_agents.ppo import PPO
from textgym_agents.ppo_config import PPOConfig
from textgym_agents.presets import preset
from textgym_agents.run_folder import finite
from textgym_agents.train import Reporter, TrainConfig, train

_SAID_ELSEWHERE = {"task", "task_args", "agent", "agent_args", "rewards", "assigner", "streams", "updates", "seed", "ppo"}
_NOT_OURS = {"out", "checkpoint_every", "resume"}
OPTIONS = tuple(each.name for each in fields(TrainConfig) if each.name not in _SAID_ELSEWHERE | _NOT_OURS)
"""Fields of ``TrainConfig`` that ``Setting.options`` may hold; and there is ``episodes_per_update``."""


@dataclass(frozen=True)
class Job:
    """A run to be done."""

    setting: Setting
    seed: int
    work: Path
    """A folder for what the run writes; nothing of it is kept."""


def run(job: Job) -> dict[str, Any]:
    """Do a run.

    Returns:
        ``credit`` where it is measured exactly; else ``curve``, ``before`` and ``final``. With it ``warnings``, each once, and
        ``seconds``.
    """
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # in a process that has warned before, too
        if job.setting.agent == EXACT:
            found: dict[str, Any] = {"credit": measure(job.setting, job.seed)}
        else:
            found = _learn(job)
    said = [f"{each.category.__name__}: {each.message}" for each in caught]
    return found | {"warnings": list(dict.fromkeys(said)), "seconds": round(time.perf_counter() - start, 2)}


def check(setting: Setting) -> None:
    """Raise ValueError where a setting names what is not there, or has a budget that cannot be spent; nothing is built."""
    if setting.agent == EXACT:
        contestant(setting.reward)
        return
    config_of(setting, 0)
    if setting.reward not in REWARD_FORMS:
        make_assigner(setting.reward)


def config_of(setting: Setting, seed: int, **changes: Any) -> TrainConfig:
    """Say with which options ``train`` runs a setting: those of ``textgym train`` for the task, with the setting's on top.

    Raises:
        ValueError: an option is unknown, or the budget is no whole number of updates.
    """
    options = dict(setting.options)
    size = options.pop("episodes_per_update", None)
    if unknown := sorted({*options} - {*OPTIONS}):
        raise ValueError(
            f"the options of {setting.task_name} have {', '.join(unknown)}; there are episodes_per_update, {', '.join(OPTIONS)}"
        )
    agent = find_agent(setting.agent)
    base = preset(setting.task, agent=setting.agent)
    given = dict(setting.agent_args)
    size = given.get("episodes_per_update", base.ppo.episodes_per_update if size is None else size)
    if setting.episodes % size:
        raise ValueError(
            f"the budget of {setting.task_name} is {setting.episodes} episodes, and an update of {setting.contestant} takes "
            f"{size}; give a multiple, such as {max(1, round(setting.episodes / size)) * size}"
        )
    if agent is PPO:
        changed = options_of(PPO, given | {"episodes_per_update": size}, asdict(base.ppo))["config"]
        changes |= {"ppo": changed}
    else:
        changes |= {"ppo": PPOConfig(episodes_per_update=size), "agent_args": given}
    options.setdefault("num_slots", min(base.num_slots, size))
    return replace(base, **{"device": "cpu"} | options | changes, seed=seed, updates=setting.episodes // size)


def task_of(setting: Setting) -> Task:
    """Build the task of a setting in its form of reward."""
    reward = setting.reward if setting.reward in REWARD_FORMS else make_assigner(setting.reward)
    return in_form(setting.task, reward, **setting.task_args)


class Watched(RewardForm):
    """The same task, which counts the texts that it is asked to judge, and the agent's tokens in them."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.assigner = resolve_assigner(task.assigner)  # the object itself, since it counts what it has scored
        self.texts = self.tokens = 0
        self.score = self._score  # type: ignore[method-assign]

    def _score(self, episodes: Sequence[Episode]) -> float:
        self.texts += len(episodes)
        self.tokens += sum(int(episode.agent_mask.sum()) for episode in episodes)
        return self.task.score(episodes)

    def spent(self) -> dict[str, int]:
        """Say what was judged so far; a text is one reward call, those that the assigner had scored are further ones."""
        calls = self.texts + int(getattr(self.assigner, "reward_calls", 0))
        return {"tokens": self.tokens, "episodes": self.texts, "reward_calls": calls}


@dataclass
class Curve(Reporter):
    """Hears a run, and writes its curve down: a collection's score belongs to what was spent before that collection."""

    task: Watched
    points: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in ("tokens", "episodes", "reward_calls", "score")}
    )
    _start: dict[str, int] | None = None
    _spent: dict[str, int] = field(default_factory=lambda: {"tokens": 0, "episodes": 0, "reward_calls": 0})

    def phase(self, name: str, total: int) -> None:
        """Begin where learning does."""
        if name == "learning":
            self._start = self.task.spent()

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Add a point where texts were judged."""
        if self._start is not None and "score" in figures:
            self.add(figures["score"])
            self._spent = {name: spent - self._start[name] for name, spent in self.task.spent().items()}

    def add(self, score: float) -> None:
        """Add a point: the score of who has learned from all that was spent until now."""
        for name, value in {**self._spent, "score": score}.items():
            self.points[name].append(value)


def _learn(job: Job) -> dict[str, Any]:
    transformers_logging.disable_progress_bar()
    setting = job.setting
    task = Watched(task_of(setting))
    curve = Curve(task)
    job.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.work) as folder:
        done = train(config_of(setting, job.seed, task=task, out=Path(folder)), curve)
    curve.add(done.after["score"])
    return {"curve": curve.points, "before": finite(done.before), "final": finite(done.after)}


def versions() -> dict[str, str]:
    """Name what the runs ran on."""
    names = ("textgym", "torch", "transformers", "numpy", "scipy", "gymnasium")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
