"""A rollout buffer for Stable-Baselines3 that learns from texts, each when its rewards are there and once.

Left out on purpose: reading infos, which no buffer of SB3 gets to see; ``TokenRewards``, the callback in ``sb3``, announces the
releases. Steps of unfinished texts stay in the buffer from rollout to rollout.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from textgym.episode import Release
from textgym.integrations.stream_gae import stream_gae
from textgym.ledger import TOLERANCE, Ledger


@dataclass(frozen=True, eq=False)
class _Text:
    """A released text in the buffer: its n agent tokens are the rows from ``start`` on, of one slot."""

    slot: int
    start: int
    rewards: npt.NDArray[np.float64]
    """(n,), the bootstrap on the last of them."""
    streams: npt.NDArray[np.int64]
    """(n,)."""
    released: float
    bootstrap: float


class TokenRewardBuffer(RolloutBuffer):
    """Holds the steps of each text back until its token rewards are released, then hands them out in the next update, once.

    ``PPO(policy, env, rollout_buffer_class=TokenRewardBuffer)`` and ``learn(n, callback=TokenRewards())``. After a rollout the
    buffer holds M steps, those of the texts that were released in it, however long ago they began; SB3's own arrays are flat
    then, (M, ...): ``observations``, ``actions``, ``rewards``, ``values``, ``log_probs``, ``advantages``, ``returns``.
    Advantages stay inside their streams. A rollout in which fewer than two steps were released gives one neutral batch:
    advantages 0 and returns equal to the values; the callback keeps the optimizer from stepping on it, and what was released
    waits for the next one.

    Args:
        whole_texts: minibatches of whole texts, of about ``batch_size`` steps each, for policies that run a text's steps in
            one pass; else steps are shuffled as SB3 does.
        args: as SB3's ``RolloutBuffer``; kwargs too.

    Raises:
        ValueError: observations are a Dict space.
    """

    def __init__(self, *args: Any, whole_texts: bool = False, **kwargs: Any) -> None:
        self.whole_texts = whole_texts
        self.is_neutral = False
        """Whether the present batch is one to learn nothing from."""
        self.paid = 0.0
        """Sum of all rewards that were handed out for learning."""
        self.tokens_played = self.tokens_learned = self.tokens_abandoned = 0
        """Steps that SB3 took; those handed out; those given up, because SB3 reset the environment or training ended in a step.
        They are counted from the buffer's first step on: SB3's ``num_timesteps`` starts anew with most calls of ``learn``."""
        self._released = self._bootstrap = self._abandoned = self._size = 0.0
        self._held: dict[str, npt.NDArray[Any]] = {}  # (rows, N, ...): the steps of this rollout, and before them older ones
        self._begins = np.zeros(0, dtype=np.int64)  # (N,), the row in which each slot's running text began
        self._finished: list[_Text] = []
        self._announced: tuple[npt.NDArray[np.float64], Mapping[int, Release]] | None = None
        super().__init__(*args, **kwargs)
        if isinstance(self.observation_space, gym.spaces.Dict):
            raise ValueError("observations are a Dict; make the environment with observation='tokens'")

    @property
    def tokens_held(self) -> int:
        """Steps that wait: for the release of their text, for the next update, or for their place in the buffer."""
        running = int((self.pos - self._begins).sum()) + self.n_envs * (self._announced is not None)
        return running + sum(len(text.rewards) for text in self._finished)

    @property
    def ledger(self) -> Ledger:
        """What was released in texts that were learned from, and what SB3's bootstrap added to it (a negative account)."""
        return Ledger(self._released, {"bootstrap": -self._bootstrap, "abandoned": self._abandoned})

    def check_ledger(self) -> None:
        """Raise ValueError where the rewards handed out are not those released, or a step was lost."""
        self.ledger.check(self.paid, self._size, "the rollout buffer")
        if self.tokens_played != self.tokens_learned + self.tokens_held + self.tokens_abandoned:
            raise ValueError(
                f"SB3 took {self.tokens_played} steps, but {self.tokens_learned} were learned from, {self.tokens_held} wait "
                f"and {self.tokens_abandoned} were given up; a subclass of the buffer lost some, or counted them twice"
            )

    def reset(self) -> None:
        """Start a rollout: drop what was learned from, keep the steps of unfinished texts."""
        if self._announced is not None:  # a callback ended training between a step and its place here
            released = sum(float(release.token_rewards.sum()) for release in self._announced[1].values())
            self._abandoned += released
            self._released += released
            self.tokens_abandoned += self.n_envs
            self._announced = None
        if len(self._begins) == 0:
            self._begins = np.zeros(self.n_envs, dtype=np.int64)
        first = min([int(self._begins.min()), *(text.start for text in self._finished)])
        rows = self.pos - first
        for name, old in self._held.items():
            self._held[name] = np.empty((rows + self.buffer_size, *old.shape[1:]), dtype=old.dtype)
            self._held[name][:rows] = old[first : self.pos]
        self._begins -= first
        self._finished = [_shifted(text, first) for text in self._finished]
        self.pos, self.full, self.generator_ready = rows, False, False

    def announce(self, rewards: npt.NDArray[Any], releases: Mapping[int, Release]) -> None:
        """Say what the step that ``add`` is about to get was paid, and which texts it ended.

        Args:
            rewards: float (N,), before SB3 adds its bootstrap.
            releases: slot -> release.
        """
        self._announced = np.array(rewards, dtype=np.float64), releases
        self.tokens_played += self.n_envs

    def add(
        self,
        obs: Any,
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        episode_start: npt.NDArray[Any],
        value: Any,
        log_prob: Any,
    ) -> None:
        """Take a step of all slots; see SB3.

        Raises:
            RuntimeError: the callback has not announced it.
            ValueError: a reward is not the sum of the released token rewards, or steps of a text are missing.
        """
        if self._announced is None:
            raise RuntimeError("TokenRewardBuffer needs its callback: model.learn(n, callback=TokenRewards())")
        (paid, releases), self._announced = self._announced, None
        _check_paid(paid, releases)
        # 1) a text that goes on although its slot starts anew was given up by a reset from outside
        fresh = np.asarray(episode_start, dtype=np.bool_)
        self.tokens_abandoned += int((self.pos - self._begins)[fresh].sum())
        self._begins[fresh] = self.pos
        # 2) the step
        self._store(
            observations=np.asarray(obs).reshape(self.n_envs, *self.obs_shape),
            actions=np.asarray(action).reshape(self.n_envs, self.action_dim),
            values=value.cpu().numpy().reshape(self.n_envs),
            log_probs=log_prob.cpu().numpy().reshape(self.n_envs),
        )
        # 3) what ended with it
        for slot, release in releases.items():
            self._finish(slot, release, float(reward[slot]) - float(paid[slot]))

    def _store(self, **step: npt.NDArray[Any]) -> None:
        """Write one row, each array (N, ...)."""
        for name, array in step.items():
            if name not in self._held:
                self._held[name] = np.empty((self.buffer_size, *array.shape), dtype=array.dtype)
            self._held[name][self.pos] = array
        self.pos += 1

    def _finish(self, slot: int, release: Release, bootstrap: float) -> None:
        """Lay the rewards of a text on its steps."""
        start, agent = int(self._begins[slot]), release.agent_mask
        if self.pos - start != agent.sum():
            raise ValueError(
                f"the buffer has {self.pos - start} steps of the text that ended in slot {slot}, but {agent.sum()} tokens "
                "of it are the agent's: training was stopped in the middle of a step, or someone else stepped the environment; "
                "call learn with reset_num_timesteps=True, which resets it"
            )
        rewards = release.token_rewards[agent].astype(np.float64)
        released = float(rewards.sum())
        rewards[-1] += bootstrap  # the last agent token's stream alone goes on behind the cut
        self._finished.append(_Text(slot, start, rewards, release.streams[agent], released, bootstrap))
        self._begins[slot] = self.pos

    def compute_returns_and_advantage(self, last_values: Any, dones: npt.NDArray[Any]) -> None:
        """Gather the released texts and their advantages per stream; SB3's arguments, about unfinished texts, are not read."""
        counts = [len(text.rewards) for text in self._finished]
        self.is_neutral = sum(counts) < 2  # the standard deviation of one advantage is NaN
        if self.is_neutral:
            cells = np.arange(2)
            self._gather(np.maximum(self.pos - 1 - cells // self.n_envs, 0), cells % self.n_envs)
            self.texts, self.rewards, self.advantages = cells, np.zeros(2, np.float32), np.zeros(2, np.float32)
        else:
            self.texts = np.repeat(np.arange(len(counts)), counts)
            rows = np.concatenate([text.start + np.arange(len(text.rewards)) for text in self._finished])
            self._gather(rows, np.repeat([text.slot for text in self._finished], counts))
            rewards = np.concatenate([text.rewards for text in self._finished])
            streams = np.concatenate([text.streams for text in self._finished])
            advantages = stream_gae(rewards, self.values, streams, self.texts, gamma=self.gamma, gae_lambda=self.gae_lambda)
            self.rewards, self.advantages = rewards.astype(np.float32), advantages.astype(np.float32)
            self._book()
        self.returns = self.advantages + self.values
        self.full = True

    def _gather(self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> None:
        for name, held in self._held.items():
            setattr(self, name, held[rows, slots])

    def _book(self) -> None:
        """Enter the batch into the ledger, and let its texts go."""
        self.paid += float(self.rewards.sum(dtype=np.float64))
        self.tokens_learned += len(self.rewards)
        for text in self._finished:
            self._released += text.released
            self._bootstrap += text.bootstrap
            self._size += float(np.abs(text.rewards).sum()) + abs(text.bootstrap)
        self._finished = []

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield minibatches, each step in one of them; None: a single one."""
        if not self.full:
            raise RuntimeError("the rollout is not complete; compute_returns_and_advantage comes first")
        count = len(self.texts)
        shuffled = np.random.permutation(count)  # noqa: NPY002 (as SB3's buffers: from what the algorithm's seed seeds)
        if batch_size is None or self.is_neutral:
            batch_size = count
        if not self.whole_texts:
            for start in range(0, count, batch_size):
                yield self._get_samples(shuffled[start : start + batch_size])
            return
        # Texts in the order of their first shuffled step; the middle of each says which of the equal shares it falls into.
        kinds, first, sizes = np.unique(self.texts[shuffled], return_index=True, return_counts=True)
        order = np.argsort(first)
        middles = np.cumsum(sizes[order]) - sizes[order] / 2
        shares = np.empty(len(kinds), dtype=np.int64)
        shares[order] = middles / count * max(1, round(count / batch_size))
        for share in np.unique(shares):
            yield self._get_samples(np.flatnonzero(shares[self.texts] == share))


def _shifted(text: _Text, rows: int) -> _Text:
    return _Text(text.slot, text.start - rows, text.rewards, text.streams, text.released, text.bootstrap)


def _check_paid(paid: npt.NDArray[np.float64], releases: Mapping[int, Release]) -> None:
    """Raise where a step was paid something else than the releases say."""
    expected = np.zeros_like(paid)
    size = np.ones_like(paid)
    for slot, release in releases.items():
        expected[slot] = release.token_rewards.sum(dtype=np.float64)
        size[slot] = max(1.0, float(np.abs(release.token_rewards).sum()))
    for slot in np.flatnonzero(~(np.abs(paid - expected) <= TOLERANCE * size))[:1]:
        raise ValueError(
            f"slot {slot} was paid {paid[slot]:g} but its released token rewards come to {expected[slot]:g}: something between "
            "the environment and SB3 changes rewards (VecNormalize? use norm_reward=False); change token rewards with "
            "textgym.vector_wrappers.TransformTokenRewards instead"
        )
