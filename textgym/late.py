"""Releases that come later: what is owed to an environment's agent, bounded, in order, one per slot and step.

Left out on purpose: threads and clocks, which are ``pool``'s, and the layout of infos, which is ``info``'s.
"""

from __future__ import annotations

import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Literal

from textgym.episode import Episode, Release
from textgym.pool import Job, RewardCall, RewardPool, said


class LateReleases:
    """Outcomes of a reward pool, kept until they are handed out.

    Args:
        reward: ``(episodes, slots) -> releases``, what the pool calls.
        num_envs: N.
        workers: how many calls run at a time.
        kind: "thread" or "process".
        timeout: seconds that one call may take; None: no limit.
        max_pending: how many episodes may wait for their rewards; ``submit`` waits until it is so. None: 4 N.
        on_error: "raise" or "drop".

    Raises:
        ValueError: an argument is not allowed; no worker was hired then.
    """

    def __init__(
        self,
        reward: RewardCall,
        num_envs: int,
        *,
        workers: int,
        kind: Literal["thread", "process"] = "thread",
        timeout: float | None = None,
        max_pending: int | None = None,
        on_error: Literal["raise", "drop"] = "raise",
    ) -> None:
        if on_error not in ("raise", "drop"):
            raise ValueError(f"on_reward_error is {on_error!r}; allowed are 'raise' and 'drop'")
        bound = 4 * num_envs if max_pending is None else max_pending
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 0:
            raise ValueError(f"max_pending is {max_pending!r}; give a whole number of at least 0")
        self._max_pending = bound
        self._drops = on_error == "drop"
        self._due: list[deque[tuple[Episode, Release]]] = [deque() for _ in range(num_envs)]
        self._failed: deque[Exception] = deque()
        self._dropped: list[deque[int]] = [deque() for _ in range(num_envs)]
        self.num_dropped = 0
        self._named: set[type] = set()  # kinds of errors that a warning has named
        self._pool = RewardPool(reward, workers, kind, timeout)
        # An environment that nobody closes is collected, or lives to the end of the interpreter: its workers are not left over.
        weakref.finalize(self, self._pool.close)

    @property
    def num_due(self) -> int:
        """Episodes whose releases (or errors) were not handed out yet."""
        return self._pool.untaken + sum(map(len, self._due)) + len(self._failed)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue ended episodes; waits while more than ``max_pending`` are without rewards."""
        self._pool.submit(jobs)
        self._pool.wait(self._max_pending)

    def raise_failed(self) -> None:
        """Raise the error of the first episode that failed and was not reported yet."""
        self._sort()
        if self._failed:
            raise self._failed.popleft()

    def take(self) -> tuple[list[tuple[Episode, Release]], list[tuple[int, int]]]:
        """Take at most one release per slot; and slot and episode_id of what was dropped, one per slot too."""
        self._sort()
        released = [due.popleft() for due in self._due if due]
        dropped = [(slot, ids.popleft()) for slot, ids in enumerate(self._dropped) if ids]
        return released, dropped

    def drain(self) -> list[tuple[Episode, Release]]:
        """Wait for all, and take them, in the order of their episodes' ids."""
        self._pool.wait(0)
        self.raise_failed()
        out = [item for due in self._due for item in due]
        for due in self._due:
            due.clear()
        return sorted(out, key=lambda item: item[1].episode_id)

    def close(self) -> None:
        """Stop the pool; what is due is lost, and a warning says so."""
        self._sort()
        due = self.num_due
        self._pool.close()
        for queue in (*self._due, self._failed):
            queue.clear()
        if due:
            warnings.warn(
                f"closed with {due} releases still due; call drain() before close() to have them",
                RuntimeWarning,
                stacklevel=4,
            )

    def _sort(self) -> None:
        """Put what the pool has done where it belongs; warnings come last, since they may be errors."""
        told = [
            f"a reward call failed for several episodes and for none of them alone, which paid them: {said(error)}; a reward "
            "function must do for any number of episodes"
            for error in self._pool.take_excused()
        ]
        for job, release, error in self._pool.take():
            number = job.episode.episode_id
            if release is not None:
                self._due[job.slot].append((job.episode, release))
            elif error is not None and self._drops:
                self._dropped[job.slot].append(number)
                self.num_dropped += 1
                if type(error) not in self._named:  # one of each kind is enough to know why
                    self._named.add(type(error))
                    told.append(f"episode {number} is dropped, its reward failed: {said(error)}")
            elif error is not None:
                error.add_note(f"the reward of episode {number} failed; the episode is given up")
                self._failed.append(error)
        for message in told:
            warnings.warn(message, RuntimeWarning, stacklevel=5)
