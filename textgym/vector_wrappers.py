"""Wrappers around a vector environment: token rewards rewritten, and episode statistics for numpy and torch output.

Left out on purpose: wrappers that work as Gymnasium ships them. Its ``RecordEpisodeStatistics`` fails on torch output; this
one records the same, from the same places, for either.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from textgym.episode import Release
from textgym.info import dropped, endings, release_infos, releases, to_host
from textgym.rules import episode_return
from textgym.wrappers import Transform, account_name, check_sum, rewrite


class TransformTokenRewards(gym.vector.VectorWrapper):
    """Rewrite the token rewards of a vector environment at their release; see ``textgym.wrappers.TransformTokenRewards``.

    Works around the native vector environment (numpy and torch, late releases and ``drain`` included) and around Gymnasium's
    Sync and Async ones.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], transform: Transform, account: str | None = None) -> None:
        super().__init__(env)
        self.transform = transform
        self.account = account_name(transform, account)
        self._kept: list[Release] = []  # rewritten, and still due: another one in their step could not be

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and rewrite what is released; raises what ``rewrite`` does."""
        return self._rewritten(*self.env.step(actions))

    def step_many(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take several steps, and rewrite what is released; see ``TextGenVectorEnv.step_many`` and ``step``."""
        return self._rewritten(*self.env.step_many(actions))  # type: ignore[attr-defined]

    def _rewritten(
        self, obs: Any, rewards: Any, terminated: Any, truncated: Any, infos: dict[str, Any]
    ) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        before = releases(infos)
        if not before and not self._kept:
            return obs, rewards, terminated, truncated, infos
        if _release_late(self.env):
            return obs, rewards, terminated, truncated, infos | self._rewrite_late(before, infos)
        after = [rewrite(item, self.transform, self.account) for item in before]
        source = infos.get("final_info", infos)
        changed = {"released": after} if "released" in source else self._infos(after, source["token_rewards"].shape[1])
        for old in before:
            check_sum(float(rewards[old.slot]), old)
        paid = np.asarray(to_host(rewards), dtype=np.float64).copy()
        paid[[item.slot for item in after]] = [episode_return(item) for item in after]
        changed = infos | ({"final_info": source | changed} if "final_info" in infos else changed)
        return obs, _output(self.env, paid), terminated, truncated, changed

    def drain(self) -> list[Release]:
        """Wait for the releases that are still due, and rewrite them too; raises what ``rewrite`` does and keeps the others."""
        self._rewrite_all(drain(self.env))
        kept, self._kept = self._kept, []
        return kept

    def _rewrite_late(self, before: list[Release], infos: dict[str, Any]) -> dict[str, Any]:
        """Rewrite late releases; one per slot is handed out in a step."""
        self._rewrite_all(before)
        now = list({item.slot: item for item in reversed(self._kept)}.values())[::-1]
        self._kept = [item for item in self._kept if not any(item is given for given in now)]
        now.sort(key=lambda item: item.slot)
        native: Any = self.env.unwrapped
        if native.infos == "objects":
            return {"released": now}
        late = infos.get("late", {}) | self._infos(now, native.rules.max_response_tokens)
        return {"late": late, "_late": late["_token_rewards"]}

    def _rewrite_all(self, before: list[Release]) -> None:
        """Rewrite what can be, then raise the first error: one release that cannot be rewritten does not cost the others."""
        errors = []
        for item in before:
            try:
                self._kept.append(rewrite(item, self.transform, self.account))
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _infos(self, released: list[Release], size: int) -> dict[str, Any]:
        return _output(self.env, release_infos(released, self.num_envs, size))


class RecordEpisodeStatistics(gym.vector.VectorWrapper):
    """Return and length of ended episodes under ``infos["episode"]``, as Gymnasium's wrapper writes them.

    ``episode`` has ``r`` float64 (N,), ``l`` int64 (N,) (steps of the agent), ``t`` float64 (N,) (seconds from start to end),
    valid where ``_episode``. With reward workers they stand in the step that hands the release out.

    Args:
        env: a textgym vector environment, numpy or torch output.
        buffer_length: how many episodes ``return_queue``, ``length_queue`` and ``time_queue`` keep.
        stats_key: the name ``episode``.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], buffer_length: int = 100, stats_key: str = "episode") -> None:
        super().__init__(env)
        self._stats_key = stats_key
        self.episode_count = 0
        self.return_queue: deque[float] = deque(maxlen=buffer_length)
        self.length_queue: deque[int] = deque(maxlen=buffer_length)
        self.time_queue: deque[float] = deque(maxlen=buffer_length)
        self._begun = np.full(self.num_envs, time.perf_counter())
        self._seconds: dict[tuple[int, int], float] = {}  # by slot and episode_id, from the end to the release
        self._next_step = env.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP
        self._restart = np.zeros(self.num_envs, dtype=np.bool_)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; the clocks of the slots that start anew begin again."""
        mask = (options or {}).get("reset_mask")
        self._begun[slice(None) if mask is None else to_host(mask)] = time.perf_counter()
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and write the statistics of what was released.

        Raises:
            ValueError: the infos have statistics already; another wrapper writes them.
        """
        return self._recorded(*self.env.step(actions))

    def step_many(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take several steps, and write statistics of what was released; see ``TextGenVectorEnv.step_many`` and ``step``."""
        return self._recorded(*self.env.step_many(actions))  # type: ignore[attr-defined]

    def _recorded(
        self, obs: Any, rewards: Any, terminated: Any, truncated: Any, infos: dict[str, Any]
    ) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        now = time.perf_counter()
        if self._next_step:
            self._begun[self._restart] = now
            self._restart[:] = False
        for ending in endings(infos):
            self._seconds[ending.slot, ending.episode_id] = round(now - self._begun[ending.slot], 6)
            self._begun[ending.slot] = now
            self._restart[ending.slot] = True
        for episode_id in dropped(infos):  # by the native environment alone, which numbers episodes slot + N x count
            self._seconds.pop((episode_id % self.num_envs, episode_id), None)
        released = releases(infos)
        if released:
            if self._stats_key in infos:
                raise ValueError(
                    f"the infos have {self._stats_key!r} already; use one RecordEpisodeStatistics, or another stats_key"
                )
            infos = infos | _output(self.env, self._record(released, rewards, late=_release_late(self.env)))
        return obs, rewards, terminated, truncated, infos

    def _record(self, released: list[Release], rewards: Any, late: bool) -> dict[str, Any]:
        """Write the statistics of released episodes, and count them."""
        paid = to_host(rewards)
        table = {key: np.zeros(self.num_envs, dtype) for key, dtype in (("r", np.float64), ("l", np.int64), ("t", np.float64))}
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        for item in released:
            mask[item.slot] = True
            # Every step before the last pays 0; wrappers inside of this one may have changed the last.
            table["r"][item.slot] = episode_return(item) if late else paid[item.slot]
            table["l"][item.slot] = np.count_nonzero(item.agent_mask)
            # An episode that ended before this wrapper was put around has no clock.
            table["t"][item.slot] = self._seconds.pop((item.slot, item.episode_id), 0.0)
        self.episode_count += len(released)
        self.return_queue.extend(table["r"][mask].tolist())
        self.length_queue.extend(table["l"][mask].tolist())
        self.time_queue.extend(table["t"][mask].tolist())
        return {self._stats_key: table, f"_{self._stats_key}": mask}

    def drain(self) -> list[Release]:
        """Wait for the releases that are still due; they are counted too."""
        released = drain(self.env)
        for item in released:
            self._record([item], None, late=True)
        return released


def takes_many(env: Any) -> bool:
    """Whether an environment has ``step_many``, and so has every wrapper around it that has a say in its steps.

    A class that has a ``step`` of its own needs a ``step_many`` of its own: one that it inherits does not know of that step.
    """
    while isinstance(env, gym.vector.VectorWrapper):
        if not _is_own(env, gym.vector.VectorWrapper):
            return False
        env = env.env
    return hasattr(env, "step_many") and _is_own(env, object)


def _is_own(env: Any, base: type) -> bool:
    """Whether no class between ``env``'s and ``base`` changes ``step`` after the last that changes ``step_many``."""
    if "step" in vars(env):  # of this one object
        return "step_many" in vars(env)
    for kind in type(env).__mro__:
        if kind is base or "step_many" in vars(kind):
            return True
        if "step" in vars(kind):
            return False
    return True


def drain(env: Any) -> list[Release]:
    """Wait for the releases that are still due, as the outermost wrapper that has a say in them hands them out.

    Gymnasium's own vector environments release at once and owe none.
    """
    while not hasattr(env, "drain"):
        if not isinstance(env, gym.vector.VectorWrapper):
            return []
        env = env.env
    return env.drain()


def _release_late(env: gym.vector.VectorEnv[Any, Any, Any]) -> bool:
    """Whether what an environment releases in a step ended in earlier ones: only the native one has reward workers."""
    return getattr(env.unwrapped, "releases_late", False)


def _output(env: gym.vector.VectorEnv[Any, Any, Any], value: Any) -> Any:
    """Hand arrays out as the environment does: numpy, or tensors on its device."""
    native: Any = env.unwrapped
    return native.as_output(value) if hasattr(native, "as_output") else value
