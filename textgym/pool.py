"""Rewarding finished episodes while the environment goes on: a queue, workers, a clock.

Left out on purpose: any effect on what is paid. A worker calls the same function as an environment without workers; only
the step in which a release is handed out differs. A call that raises, passes its time limit or loses its process is
repeated with each of its episodes alone, so that only those fail that fail alone, and each failure has its error.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import gymnasium as gym

from textgym.episode import Episode, Release, read_only

_START_LIMIT = 60.0  # seconds for a process to import what the task needs
_LONGEST_TIMEOUT = 1e6  # what the clock of a lock can wait for

RewardCall: TypeAlias = Callable[[Sequence[Episode], Sequence[int]], list[Release]]


@dataclass(eq=False)
class FailedCall:
    """A call for several episodes that failed; each of them is tried again by itself."""

    error: Exception
    left: int
    """Episodes that were not tried again yet."""
    excused: bool = True
    """None of them failed alone."""


class Job(NamedTuple):
    """An ended episode that waits for its rewards."""

    slot: int
    episode: Episode
    again: FailedCall | None = None
    """The call that it was in, where that one failed."""


class Outcome(NamedTuple):
    """What became of a job: a release, or the error of its call."""

    job: Job
    release: Release | None
    error: Exception | None


@dataclass(eq=False)
class _Worker:
    """One caller; all but its process is read and written under the pool's lock."""

    call: list[Job]
    busy: bool = False
    deadline: float = float("inf")
    abandoned: bool = False
    process: BaseProcess | None = None
    connection: Connection | None = None


class RewardPool:
    """Workers that reward episodes in the background.

    Args:
        reward: ``(episodes, slots) -> releases``; for processes it must be picklable.
        workers: how many calls run at a time.
        kind: "thread", or "process" (spawned: the reward must be importable from there, and scripts need the guard
            ``if __name__ == "__main__"``). A thread that passes its time limit cannot be stopped, only left behind.
        timeout: seconds that one call may take; None: no limit.
    """

    def __init__(
        self, reward: RewardCall, workers: int, kind: Literal["thread", "process"] = "thread", timeout: float | None = None
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"reward_workers is {workers!r}; give a whole number, 0 for rewards in the step itself")
        if kind not in ("thread", "process"):
            raise ValueError(f"reward_worker_kind is {kind!r}; allowed are 'thread' and 'process'")
        if timeout is not None and (not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_TIMEOUT):
            raise ValueError(f"reward_timeout is {timeout!r}; give seconds above 0 and at most {_LONGEST_TIMEOUT:g}, or None")
        if kind == "process":
            _check_picklable(reward)
        self._reward = reward
        self._kind = kind
        self._timeout = timeout
        self._queue: deque[Job] = deque()
        self._done: deque[Outcome] = deque()
        self._excused: deque[FailedCall] = deque()
        self._unfinished = 0
        self._closed = False
        self._changed = threading.Condition()
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._hire()
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> str:
        raise TypeError("an environment with reward workers cannot be copied or pickled; make it where it is used")

    @property
    def unfinished(self) -> int:
        """Jobs that have no outcome yet."""
        return self._unfinished

    @property
    def untaken(self) -> int:
        """Jobs that have no outcome yet, or one that was not taken."""
        with self._changed:
            return self._unfinished + len(self._done)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put jobs into the queue."""
        with self._changed:
            if self._closed:
                raise gym.error.ClosedEnvironmentError("the environment is closed; its reward workers are gone")
            self._queue.extend(jobs)
            self._unfinished += len(jobs)
            self._changed.notify_all()

    def take(self) -> list[Outcome]:
        """Take what has an outcome by now, in the order in which it came."""
        with self._changed:
            self._expire()
            done = list(self._done)
            self._done.clear()
            return done

    def take_excused(self) -> list[Exception]:
        """Take the errors of calls that failed for several episodes and for none of them alone."""
        with self._changed:
            errors = [failed.error for failed in self._excused]
            self._excused.clear()
            return errors

    def wait(self, at_most: int) -> None:
        """Wait until at most that many jobs are unfinished."""
        with self._changed:
            while self._unfinished > at_most:
                self._expire()
                if self._unfinished > at_most:
                    deadline = min(worker.deadline for worker in self._workers)
                    # A call that begins while this waits has a deadline that is not known here yet.
                    left = self._timeout if deadline == float("inf") else max(0.0, deadline - time.monotonic())
                    self._changed.wait(None if left is None else left + 1e-3)

    def close(self) -> None:
        """Stop the workers; jobs without an outcome are given up."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._unfinished = 0
            for worker in self._workers:
                worker.abandoned = True
                _stop(worker)
            self._changed.notify_all()

    def _hire(self) -> None:
        worker = _Worker([])
        threading.Thread(target=self._work, args=(worker,), name="textgym-reward", daemon=True).start()
        self._workers.append(worker)

    def _expire(self) -> None:
        """Give up calls that passed their time limit, and hire others for their workers."""
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline < now]:
            limit = TimeoutError(f"rewarding took longer than reward_timeout={self._timeout} seconds")
            worker.abandoned = True
            _stop(worker)
            self._fail(worker.call, limit)
            self._workers.remove(worker)
            self._hire()
        self._changed.notify_all()

    def _fail(self, call: Sequence[Job], error: Exception) -> None:
        """Repeat the jobs of a failed call one by one; a job that was alone has failed."""
        if len(call) > 1:
            failed = FailedCall(error, len(call))
            self._queue.extendleft(job._replace(again=failed) for job in reversed(call))
        else:
            self._finish([Outcome(call[0], None, error)])

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            failed = outcome.job.again
            if failed is not None:
                failed.left -= 1
                failed.excused &= outcome.error is None
                if failed.left == 0 and failed.excused:
                    self._excused.append(failed)
        self._done.extend(outcomes)
        self._unfinished -= len(outcomes)

    def _work(self, worker: _Worker) -> None:
        """Run calls until the pool is closed or the worker abandoned."""
        while True:
            with self._changed:
                while not self._queue and not worker.abandoned:
                    self._changed.wait()
                if worker.abandoned:
                    return
                worker.call = self._next_call()
                worker.busy = True
            episodes, slots = [job.episode for job in worker.call], [job.slot for job in worker.call]
            releases: list[Release] = []
            error: Exception | None = None
            try:
                self._begin(worker)
                releases = self._call(worker, episodes, slots)
            except Exception as raised:
                error = raised
            except BaseException as raised:  # sys.exit() in a reward, say: it ends a thread, and nobody would know
                error = RuntimeError(f"the reward raised {said(raised)}")
                error.__cause__ = raised
            with self._changed:
                if worker.abandoned:
                    return
                worker.busy, worker.deadline = False, float("inf")
                if error is None:
                    self._finish([Outcome(job, done, None) for job, done in zip(worker.call, releases, strict=True)])
                else:
                    self._fail(worker.call, error)
                self._changed.notify_all()

    def _begin(self, worker: _Worker) -> None:
        """Start the worker's process where it has none that lives, then the clock: a start is no reward time."""
        if self._kind == "process" and (worker.process is None or not worker.process.is_alive()):
            self._start_process(worker)
        with self._changed:
            if self._timeout is not None and not worker.abandoned:
                worker.deadline = time.monotonic() + self._timeout

    def _next_call(self) -> list[Job]:
        """Take this worker's share of what waits: one call may cost the same for one episode as for many."""
        if self._queue[0].again is not None:
            return [self._queue.popleft()]
        idle = sum(not worker.busy for worker in self._workers)
        share = -(-len(self._queue) // idle)
        call: list[Job] = []
        while self._queue and self._queue[0].again is None and len(call) < share:
            call.append(self._queue.popleft())
        return call

    def _call(self, worker: _Worker, episodes: list[Episode], slots: list[int]) -> list[Release]:
        if self._kind == "thread":
            return self._reward(episodes, slots)
        assert worker.connection is not None
        try:
            worker.connection.send((episodes, slots))
            answer = worker.connection.recv()
        except (EOFError, OSError):
            if worker.process is not None:
                worker.process.join(timeout=5)
            code = worker.process.exitcode if worker.process is not None else None
            numbers = [episode.episode_id for episode in episodes]
            raise RuntimeError(f"the reward worker died (exit code {code}) while rewarding episodes {numbers}") from None
        if isinstance(answer, Exception):
            raise answer
        return [_frozen(release) for release in answer]

    def _start_process(self, worker: _Worker) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs,), daemon=True, name="textgym-reward")
        with self._changed:
            if worker.abandoned:
                raise RuntimeError("the environment was closed")
            process.start()
            worker.process, worker.connection = process, ours
        theirs.close()
        try:
            started = ours.poll(_START_LIMIT) and ours.recv()
            if started:  # sent only now: a large task would fill the pipe, and block until the child reads it
                ours.send(self._reward)
                started = ours.poll(_START_LIMIT) and ours.recv()
        except (EOFError, OSError):
            started = False
        if not started:
            _stop(worker)
            raise RuntimeError(
                f"the reward worker's process did not start (exit code {process.exitcode}); its task must be importable "
                'there, and a script needs the guard if __name__ == "__main__"'
            )


def _check_picklable(reward: RewardCall) -> None:
    try:
        ForkingPickler.dumps(reward)
    except Exception as error:
        raise ValueError(
            f"the task cannot be sent to a process ({error}); give functions that are defined at the top of a module (no "
            'lambda, no closure), or use reward_worker_kind="thread"'
        ) from error


def _serve(connection: Connection) -> None:
    """Reward what comes through the pipe, in a process of its own; the first that comes is how."""
    connection.send("up")
    reward: RewardCall = connection.recv()
    connection.send("ready")
    while True:
        try:
            episodes, slots = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: list[Release] | Exception = reward([_frozen(episode) for episode in episodes], slots)
        except BaseException as error:
            answer = _sendable(error)
        try:
            connection.send(answer)
        except Exception as error:  # what cannot be pickled
            connection.send(RuntimeError(f"the reward worker's answer cannot be sent: {said(error)}"))


def _sendable(error: BaseException) -> Exception:
    """Give an error that arrives at the other end of a pipe as what it is, or as one that says what it was."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:
        text = "(its traceback cannot be shown)"
    try:
        if isinstance(error, Exception):
            error.add_note("in the reward worker:\n" + text)
            ForkingPickler.loads(ForkingPickler.dumps(error))  # type: ignore[attr-defined]
            return error
    except Exception:
        pass  # it cannot be pickled, or not be built again
    return RuntimeError(f"the reward worker raised {said(error)}\n{text}")


def said(error: BaseException) -> str:
    """Name an error and what it says, also one that cannot say it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}, which cannot be shown"


_Frozen = TypeVar("_Frozen", Episode, Release)


def _frozen(item: _Frozen) -> _Frozen:
    """Make the arrays of an Episode or Release read-only again; pickling forgets it."""
    arrays = {name: read_only(value) for name, value in vars(item).items() if hasattr(value, "setflags")}
    return replace(item, **arrays)


def _stop(worker: _Worker) -> None:
    if worker.process is not None:
        worker.process.kill()
        worker.process.join(timeout=5)
