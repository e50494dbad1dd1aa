"""Jobs in processes of their own, so that one that fails, or takes its process with it, leaves the others alone.

Left out on purpose: order. Results come as they are ready.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch


@dataclass(frozen=True)
class Failure:
    """A job that gave no result."""

    error: str
    """What was raised, with its notes; or how the process ended."""
    traceback: str = ""
    """Where."""


@dataclass(frozen=True)
class _Worker:
    process: Any
    pipe: Connection


def in_processes(call: Callable[[Any], Any], jobs: Iterable[Any], count: int) -> Iterator[tuple[Any, Any]]:
    """Call a function with each job in one of ``count`` processes, begun anew (spawn), one torch thread each.

    Args:
        call: a function of a module; what it takes and gives can be pickled.
        jobs: arguments, taken in their order.
        count: processes side by side; they are ended when the iterator is closed, and end when this process does.

    Yields:
        a job and what the call gave, or a ``Failure``.
    """
    context = multiprocessing.get_context("spawn")
    waiting, idle = deque(jobs), list[_Worker]()
    busy: dict[Connection, tuple[_Worker, Any]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                worker = idle.pop() if idle else _start(context, call)
                job = waiting.popleft()
                busy[worker.pipe] = worker, job
                try:
                    worker.pipe.send(job)
                except OSError:  # it has ended while it waited; reading from it tells how
                    continue
            for pipe in wait(list(busy)):
                worker, job = busy[pipe]  # type: ignore[index]
                try:
                    result = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    result = Failure(f"the process ended with exit code {worker.process.exitcode}")
                else:
                    idle.append(worker)
                del busy[worker.pipe]
                yield job, result
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _start(context: Any, call: Callable[[Any], Any]) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, call), daemon=True)
    process.start()
    theirs.close()  # so that reading ends when the process does
    return _Worker(process, ours)


def _work(pipe: Connection, call: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):  # the parent has ended
            return
        try:
            result = call(job)
        except Exception as error:
            said = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
            result = Failure(said, traceback.format_exc())
        pipe.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when the parent has ended, by a kill too
        os._exit(1)
