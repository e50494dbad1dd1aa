"""Token rewards for single-file loops in CleanRL's manner: whole episodes instead of a fixed window.

Left out on purpose: writing rewards into the window of ``num_steps`` rows. The first tokens of a text that crosses its border
have been learned from, without their rewards, when these become known. Here a step is handed over once, when its episode has
ended: with its reward, its stream's advantage, and the log-probability with which it was sampled.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from textgym.episode import Release
from textgym.info import releases, to_host
from textgym.integrations.steps import agent_steps, stream_advantages
from textgym.time_limits import refuse_time_limits


class FinishedEpisodes:
    """Steps by slot until their episode ends; then rows to learn from.

    Args:
        envs: a vector environment of textgym environments: Gymnasium's Sync or Async one, or the native one.
        gamma: discount per step of a stream.
        gae_lambda: of the advantages.

    Raises:
        ValueError: a ``TimeLimit`` would cut texts before their rewards, or the environment does not reset by itself.
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any], gamma: float = 1.0, gae_lambda: float = 1.0) -> None:
        refuse_time_limits(envs)
        mode = envs.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise ValueError(f"autoreset_mode is {mode}; make the vector environment with NEXT_STEP or SAME_STEP")
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.rewards_placed = 0.0
        """Sum of all token rewards that were handed over."""
        self._next_step = mode is AutoresetMode.NEXT_STEP
        self._rows: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
        self._ended: dict[int, Release] = {}  # NEXT_STEP: the row after the end carries no action, but the final observation
        self._finished: list[tuple[npt.NDArray[Any], ...]] = []

    @property
    def waiting(self) -> int:
        """Steps whose episode has not ended yet: they are handed over in a later batch."""
        return sum(map(len, self._rows))

    def add(self, obs: Any, actions: Any, logprobs: Any, values: Any, infos: dict[str, Any]) -> None:
        """Store one row of each slot, arrays or tensors, and what ``envs.step`` said of it.

        Args:
            obs: (N, context_length), what the actions answered.
            actions: int (N,).
            logprobs: float (N,).
            values: float (N,).
            infos: of ``envs.step(actions)``.

        Raises:
            ValueError: a truncated episode under SAME_STEP, late rewards, or steps that do not fit an episode's tokens.
        """
        if "late" in infos or "release_pending" in infos or "release_pending" in infos.get("final_info", {}):
            raise ValueError("rewards come after their episodes' ends; make the environment with reward_workers=0")
        columns = [np.array(to_host(column)) for column in (obs, actions, logprobs, values)]
        for slot, rows in enumerate(self._rows):
            if slot in self._ended:
                self._finish(slot, self._ended.pop(slot), float(columns[3][slot]))
            else:
                rows.append(tuple(column[slot] for column in columns))
        for released in releases(infos):
            if self._next_step:
                self._ended[released.slot] = released
            elif released.truncated:
                raise ValueError(
                    f"episode {released.episode_id} was truncated, and under SAME_STEP nobody has valued its final "
                    "observation; make the vector environment with autoreset_mode=NEXT_STEP"
                )
            else:
                self._finish(released.slot, released, 0.0)

    def batch(self) -> tuple[npt.NDArray[Any], ...]:
        """Hand over the steps of all episodes that have ended since the last call, B of them.

        Returns:
            obs (B, context_length), actions (B,), logprobs (B,), advantages (B,), returns (B,), values (B,).

        Raises:
            ValueError: no episode has ended.
        """
        if not self._finished:
            raise ValueError(
                f"no episode has ended since the last batch, {self.waiting} steps are waiting; make num_steps larger than "
                "the longest text (max_new_tokens), and then every rollout ends episodes"
            )
        finished, self._finished = self._finished, []
        return tuple(np.concatenate(column) for column in zip(*finished, strict=True))

    def _finish(self, slot: int, released: Release, final_value: float) -> None:
        """Compute the advantages of an ended episode's steps."""
        obs, actions, logprobs, values = (np.stack(column) for column in zip(*self._rows[slot], strict=True))
        self._rows[slot] = []
        rewards, streams = agent_steps(released.token_rewards, released.streams, released.agent_mask, len(actions))
        self.rewards_placed += float(rewards.sum(dtype=np.float64))
        final_value *= released.truncated
        advantages = stream_advantages(rewards, values, streams, final_value, gamma=self.gamma, gae_lambda=self.gae_lambda)
        self._finished.append((obs, actions, logprobs, advantages, advantages + values, values))
