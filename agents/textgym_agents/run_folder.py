"""The folder of a run: options, figures, checkpoints, the policy, the result; and that it survives whatever happens.

Left out on purpose: what is done in a run, which is ``train``'s. The folder holds ``config.json``, ``before.jsonl`` (a few
texts of the warmed-up model), ``metrics.jsonl``, ``checkpoints/<number>/`` where they were asked for, what the agent's ``save``
wrote (``policy/`` and more), ``result.json``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textgym import Episode, Release, Task, TextGenVectorEnv
from textgym.export import load_episodes, save_episodes
from textgym_agents.agent import Agent
from textgym_agents.checkpoint import (
    newest_version,
    random_states,
    set_random_states,
    write_json,
    write_version,
    write_whole,
)
from textgym_agents.evaluate import JUDGED, judge, refuse_clash
from textgym_agents.guard import AgentError, check_figures, name_of
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.train_config import TrainConfig, write_config

_RUN = "run.json"
_BEFORE = "before.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; only one process has one."""

    path: Path
    """Where it is."""

    @classmethod
    def open(cls, config: TrainConfig, task: Task) -> RunFolder:
        """Make the folder, or take that of the run that is resumed.

        Raises:
            ValueError: it holds a run already, or nothing to resume.
        """
        if config.resume:
            _checkpoint(config.resume)
            return cls(config.resume)
        name = config.task if isinstance(config.task, str) else type(task).__name__
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = config.out or Path("runs") / f"{name.replace('/', '-').replace(':', '-')}-{stamp}"
        if any((folder / name).exists() for name in ("config.json", "policy", "value", "value_head.safetensors")):
            raise ValueError(
                f"{folder} holds a run already; name another folder, remove it, or go on with it: --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_config(config, folder / "config.json")
        return cls(folder)

    @staticmethod
    def before(config: TrainConfig) -> dict[str, float]:
        """Read the figures that a resumed run began with."""
        assert config.resume is not None
        return _unfinite(_read_run(_checkpoint(config.resume))["before"])

    def write_examples(self, examples: Sequence[tuple[Episode, Release]]) -> None:
        """Write texts of the warmed-up model, so that a resumed run can show them too; without the task's own metadata."""
        bare = [(replace(each, prompt=replace(each.prompt, metadata={})), release) for each, release in examples]
        save_episodes(self.path / _BEFORE, bare)

    @staticmethod
    def examples(config: TrainConfig) -> list[tuple[Episode, Release]]:
        """Read what ``write_examples`` wrote when the run began."""
        assert config.resume is not None
        path = config.resume / _BEFORE
        return load_episodes(path) if path.exists() else []

    def write_result(
        self, before: Mapping[str, float], after: Mapping[str, float], seconds: float, best: Mapping[str, float]
    ) -> None:
        """Write what the run came to."""
        result = {"before": finite(before), "after": finite(after), "best": finite(best), "seconds": seconds}
        write_json(self.path / "result.json", result)


class Diary:
    """The callback of a run: hears an agent's figures, judges what it played, writes both down, and makes checkpoints.

    Args:
        folder: of the run; None in a process that does not write.
        task: judges.
        envs: keeps the episodes to judge.
        agent: is saved in checkpoints.
        before: figures that the run began with.
        config: says whether and how often; a resumed run's state goes into ``agent`` and ``envs`` on entering.
        hear: told the episodes so far and the figures.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        task: Task,
        envs: TextGenVectorEnv,
        agent: Any,
        before: Mapping[str, float],
        config: TrainConfig,
        hear: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        self.folder, self.task, self.envs, self.agent, self.config, self.hear = folder, task, envs, agent, config, hear
        self.before = before
        self.calls = 0
        self.best: dict[str, float] = {}
        """Highest score of a row of figures, and after how many episodes."""
        self.seconds_before = 0.0
        """What a resumed run had taken until its checkpoint."""
        self._start = time.perf_counter()
        self._log: Any = None

    def __enter__(self) -> Diary:
        if self.folder is not None:
            path = self.folder.path / "metrics.jsonl"
            path.touch()
            self._log = path.open("r+", encoding="utf-8")
            self._log.truncate(self._resume() if self.config.resume else 0)
            self._log.seek(0, 2)
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._log is not None:
            self._log.close()

    def __call__(self, figures: Mapping[str, float]) -> None:
        """Hear figures.

        Raises:
            AgentError: they are none; see ``check_figures``.
            ValueError: a metric of the task has the name of one of them.
        """
        check_figures(figures, name_of(self.agent))
        finished = self.envs.take_episodes()
        judged = judge(self.task, finished) if finished else {}
        refuse_clash(judged.keys() - JUDGED, figures)  # what is JUDGED, learners may report too, of the same episodes
        row = {**figures, **judged}
        if judged.get("score", math.nan) > self.best.get("score", -math.inf):  # a score of nan is never the best
            self.best = {"score": judged["score"], "episodes": float(figures["episodes"])}
        self.calls += 1
        if self._log is not None:
            self._log.write(json.dumps(finite(row), allow_nan=False) + "\n")
            self._log.flush()
            if self.config.checkpoint_every and self.calls % self.config.checkpoint_every == 0:
                self._checkpoint()
        self.hear(int(row["episodes"]), row)

    def check_learned(self, played: int) -> None:
        """Raise AgentError where ``learn`` came back without having done anything."""
        if played == 0 and self.calls == 0:
            raise AgentError(
                f"learn of the agent {name_of(self.agent)} returned without playing an episode and without calling callback; "
                "it is to learn from `budget` episodes and to call callback({'episodes': ...}) now and then"
            )

    def _checkpoint(self) -> None:
        assert self.folder is not None
        run = {
            "calls": self.calls,
            "before": finite(self.before),
            "best": self.best,
            "seconds": self.seconds_before + time.perf_counter() - self._start,
            "metrics_bytes": self._log.tell(),
            "generators": random_states(self.envs.np_random),
        }

        def write(folder: Path) -> None:
            self.agent.save_state(folder)
            write_json(folder / _RUN, run)

        write_version(self.folder.path / "checkpoints", self.calls, write)

    def _resume(self) -> int:
        """Put agent, environment and figures back to where the newest checkpoint was made. Returns the bytes of figures."""
        assert self.folder is not None
        at = _checkpoint(self.folder.path)
        run = _read_run(at)
        self.agent.load_state(at)
        set_random_states(self.envs.np_random, run["generators"])
        self.calls, self.best, self.seconds_before = run["calls"], run["best"], run["seconds"]
        return int(run["metrics_bytes"])


def check_resumable(agent: Any, num_processes: int) -> None:
    """Raise ValueError where runs of an agent cannot be resumed, before any work is done for one.

    A function that makes agents passes here, and is asked again when the agent is there.
    """
    if num_processes > 1:
        raise ValueError(
            f"there are {num_processes} processes, and a checkpoint holds the state of one; run without checkpoint_every"
        )
    missing = [name for name in ("save_state", "load_state") if not hasattr(agent, name)]
    if missing and not (callable(agent) and not isinstance(agent, type)):
        raise ValueError(
            f"the agent {name_of(agent)} has no {' and no '.join(missing)}, so its runs cannot be resumed: leave "
            "checkpoint_every at 0 (the policy is still saved at the end, or where something raises), or give it "
            "save_state(folder) and load_state(folder)"
        )


@contextmanager
def kept(agent: Agent, folder: RunFolder | None, policy: CausalLMPolicy) -> Iterator[None]:
    """Write the policy into the run folder where learning or evaluating raises, and let the exception pass.

    Args:
        agent: is asked to save itself.
        folder: None in a process that does not write.
        policy: what the agent was given: its model is written where the agent cannot save itself.
    """
    try:
        yield
    except BaseException as error:  # Ctrl-C too
        error.add_note(f"while the agent {name_of(agent)} was learning or being judged")
        if folder is not None:
            _rescue(agent, folder.path, policy, error)
        raise


def _rescue(agent: Agent, folder: Path, policy: CausalLMPolicy, error: BaseException) -> None:
    try:
        save_agent(agent, folder)
    except Exception as failure:
        error.add_note(f"the agent could not be written into {folder}: {failure}")
    else:
        error.add_note(f"the policy, as far as it had learned, is in {folder}")
        return
    try:
        write_whole(folder, policy.model.save)
    except Exception as failure:
        error.add_note(f"nor could the language model that it was given: {failure}")
    else:
        error.add_note(f"the language model that the agent was given, as it stands now, is in {folder}")


def save_agent(agent: Agent, folder: Path) -> None:
    """Let the agent write beside what is there and rename it then, so that a kill leaves no half of a policy.

    Raises:
        AgentError: it wrote nothing.
        Exception: what its ``save`` raised, with a note that names it.
    """
    try:
        written = write_whole(folder, agent.save)
    except Exception as error:
        error.add_note(f"raised by save of the agent {name_of(agent)}; it is called with a folder that is there and empty")
        raise
    if not written:
        raise AgentError(f"save of the agent {name_of(agent)} wrote nothing into the folder that it was given: {folder}")


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Give None for what is nan or infinite: JSON has no word for it."""
    out = {name: value if isinstance(value, int) else float(value) for name, value in figures.items()}
    return {name: value if math.isfinite(value) else None for name, value in out.items()}


def _unfinite(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in figures.items()}


def _checkpoint(folder: Path) -> Path:
    at = newest_version(folder / "checkpoints")
    if at is None:
        raise ValueError(
            f"{folder} holds no checkpoint to resume from; a run keeps them where it was begun with --checkpoint-every N, "
            "from its Nth update on"
        )
    return at


def _read_run(at: Path) -> dict[str, Any]:
    return json.loads((at / _RUN).read_text(encoding="utf-8"))
