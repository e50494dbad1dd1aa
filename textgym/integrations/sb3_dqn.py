"""Stable-Baselines3's own DQN on retroactive token rewards: a replay buffer that is written to again when a text is released.

Left out on purpose: a callback; a replay buffer of SB3 is handed the infos with every step, and there the releases are::

    env = TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=8))
    model = DQN("MlpPolicy", env, replay_buffer_class=TokenReplayBuffer, learning_starts=2_000)

Action masks are left out too: DQN has none, and the environment refuses what a mask forbids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from textgym.episode import Release
from textgym.info import release
from textgym.ledger import TOLERANCE


class TokenReplayBuffer(ReplayBuffer):
    """Gives each step the reward of its token, once that is released; until then the step is not sampled.

    With streams a step's successor is the next agent token of the same stream and text: ``next_observations`` holds the text
    before that token, and ``dones`` is 1 at the last token of each stream. DQN's target for token t with successor t' is then::

        r_t + gamma max_a Q(text before t', a)        and r_t alone at the last token of a stream

    The tokens of other streams in between are part of the environment, and gamma does not decay across them. A text that was
    cut (``truncated``) goes on in the stream of its last agent token, as SB3 has it (``timeouts``).

    Args:
        buffer_size: steps of all slots together; there has to be room for the longest text in every slot.
        observation_space: as SB3's ``ReplayBuffer`` takes it.
        args: as there; kwargs too.

    Raises:
        ValueError: observations are a Dict space, or ``optimize_memory_usage`` is asked for.
    """

    def __init__(self, buffer_size: int, observation_space: gym.Space[Any], *args: Any, **kwargs: Any) -> None:
        if isinstance(observation_space, gym.spaces.Dict):
            raise ValueError("observations are a Dict; make the environment with observation='tokens'")
        super().__init__(buffer_size, observation_space, *args, **kwargs)
        if self.optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True takes the next row for the successor, which it is not with streams")
        self.tokens_abandoned = 0
        """Steps of texts that were given up because SB3 reset the environment; they are never sampled."""
        self._known = np.zeros((self.buffer_size, self.n_envs), dtype=np.bool_)  # rows whose rewards are released
        self._lengths = np.zeros(self.n_envs, dtype=np.int64)  # steps of each slot's running text
        self._choice: npt.NDArray[np.int64] | None = None  # cells that may be sampled, until the next step

    @property
    def tokens_held(self) -> int:
        """Steps that wait for the release of their text."""
        return int(self._lengths.sum())

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Take a step of all slots, and write the rewards of texts that it ended to where their tokens stand; see SB3.

        Raises:
            ValueError: a text is longer than the buffer, ended without a release, or was paid something else than the release
                says.
        """
        row = self.pos
        # 1) a slot whose text does not go on where it was left was reset from outside
        fresh = (np.asarray(obs).reshape(self.n_envs, -1) != self.next_observations[row - 1].reshape(self.n_envs, -1)).any(1)
        fresh &= self._lengths > 0
        self.tokens_abandoned += int(self._lengths[fresh].sum())
        self._lengths[fresh] = 0
        for slot in np.flatnonzero(self._lengths >= self.buffer_size)[:1]:
            raise ValueError(
                f"the text in slot {slot} has more than {self.buffer_size} steps, all rows of the buffer; make buffer_size at "
                f"least {self.n_envs} slots times the longest text, better many times that"
            )
        # 2) the step
        self._known[row] = False
        self._choice = None
        super().add(obs, next_obs, action, reward, done, infos)
        self._lengths += 1
        # 3) what ended with it
        for slot in np.flatnonzero(done).tolist():
            self._relabel(slot, row, float(reward[slot]), infos[slot])
            self._lengths[slot] = 0

    def _relabel(self, slot: int, row: int, paid: float, info: Mapping[str, Any]) -> None:
        """Write rewards, successors and ends of the text that ended in ``slot`` with ``row``."""
        released = release(info)
        if released is None:
            raise ValueError(
                f"the episode in slot {slot} ended without a release; a time limit around the environment cut it, or its "
                f"rewards come late (reward_workers). Its info has {sorted(info)}"
            )
        rewards, streams = self._checked(released, slot, paid)
        rows = (row + 1 - len(rewards) + np.arange(len(rewards))) % self.buffer_size
        self.rewards[rows, slot] = rewards
        self.dones[rows, slot], self.timeouts[rows, slot] = 0.0, 0.0
        for stream in np.unique(streams):
            mine = rows[streams == stream]
            self.next_observations[mine[:-1], slot] = self.observations[mine[1:], slot]
            self.dones[mine[-1], slot] = 1.0
        self.timeouts[row, slot] = float(released.truncated)
        self._known[rows, slot] = True

    def _checked(self, released: Release, slot: int, paid: float) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Give rewards and streams of the agent's tokens."""
        agent = released.agent_mask
        if self._lengths[slot] != agent.sum():
            raise ValueError(
                f"the buffer has {self._lengths[slot]} steps of the text that ended in slot {slot}, but {agent.sum()} tokens "
                "of it are the agent's: someone else stepped the environment; give it to this model alone"
            )
        total = float(released.token_rewards.sum(dtype=np.float64))
        if not abs(paid - total) <= TOLERANCE * max(1.0, float(np.abs(released.token_rewards).sum())):
            raise ValueError(
                f"slot {slot} was paid {paid:g} but its released token rewards come to {total:g}: something between the "
                "environment and SB3 changes rewards; change token rewards with textgym.vector_wrappers.TransformTokenRewards"
            )
        return released.token_rewards[agent], released.streams[agent]

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """Draw released steps, uniformly and with replacement.

        Raises:
            ValueError: there is none yet, or the environment normalises rewards.
        """
        if env is not None and env.norm_reward:
            raise ValueError(
                "VecNormalize has norm_reward=True, whose scale comes from per-step rewards; use norm_reward=False"
            )
        if self._choice is None:
            self._choice = np.flatnonzero(self._known)
        if len(self._choice) == 0:
            raise ValueError(
                f"no text has been released yet, and {self.tokens_held} steps wait; raise learning_starts to the number of "
                f"slots ({self.n_envs}) times the longest text"
            )
        cells = np.random.choice(self._choice, size=batch_size)  # noqa: NPY002 (as SB3's buffers: what its seed seeds)
        at = np.unravel_index(cells, self._known.shape)
        ends = self.dones[at] * (1 - self.timeouts[at])
        obs, next_obs = (self._normalize_obs(table[at], env) for table in (self.observations, self.next_observations))
        data: tuple[Any, ...] = (obs, self.actions[at], next_obs, ends[:, None], self.rewards[at][:, None])
        return ReplayBufferSamples(*map(self.to_torch, data))
