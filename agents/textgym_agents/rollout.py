"""A collection of episodes: the Policy protocol, the Rollout that learners read, and ``collect``, which fills one.

Left out on purpose: learning, and rewards of any kind but those that the environment released. A collection is the first E
episodes *started*, all waited for: taking the first E that finish would favour short texts and bias the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from textgym import Release, TextGenVectorEnv, releases
from textgym.info import Ending, endings
from textgym.ledger import Ledger
from textgym.vector_wrappers import drain
from textgym_agents.policy import Step


class Policy(Protocol):
    """Anything that can drive a vector environment's slots."""

    def act(self, obs: Any, slots: Sequence[int] | np.ndarray) -> Step:
        """Choose the next token of each slot; ``obs`` int64 (n, context_length), row i is the text of ``slots[i]``."""
        ...

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget the texts of ``slots``: their episodes ended."""
        ...


@dataclass(frozen=True, eq=False)
class Rollout:
    """E finished episodes, T the most response tokens among them, L the most tokens of prompt and response.

    Column t is response token t; masked cells hold 0 and are never read.
    """

    ids: Tensor
    """int64 (E, L), prompt then response."""
    prompt_lengths: Tensor
    """int64 (E,)."""
    num_tokens: Tensor
    """int64 (E,), response tokens."""
    agent_mask: Tensor
    """bool (E, T), True where the agent chose the token."""
    token_rewards: Tensor
    """float32 (E, T), as released."""
    streams: Tensor
    """int64 (E, T), -1 where there is no agent token."""
    logprobs: Tensor
    """float32 (E, T), under the policy that sampled."""
    values: Tensor
    """float32 (E, T), V before the token."""
    ref_logprobs: Tensor | None
    """float32 (E, T), under the frozen reference; None where there is none."""
    policy_version: Tensor
    """int64 (E, T), the version of the policy that sampled each token; 0 throughout in a drained collection."""
    final_values: Tensor
    """float32 (E,), V of the final state of truncated episodes, else 0."""
    terminated: Tensor
    """bool (E,)."""
    truncated: Tensor
    """bool (E,)."""
    episode_id: Tensor
    """int64 (E,)."""
    group_id: Tensor
    """int64 (E,), episodes of one group share their prompt."""
    is_success: Tensor
    """bool (E,), the task's verdicts."""
    ledger: Ledger
    """Means over the episodes: what was asked for, and what weights and other stages took before the release."""

    def __len__(self) -> int:
        return len(self.ids)


def collect(envs: gym.vector.VectorEnv[Any, Any, Any], policy: Policy, episodes: int) -> Rollout:
    """Play the next ``episodes`` episodes to their end, whatever their lengths.

    An environment with reward workers hands its releases out late; those of this collection are all waited for. Episodes that
    it drops (``on_reward_error="drop"``) are left out.

    Args:
        envs: a textgym vector environment with ``autoreset_mode=AutoresetMode.DISABLED`` (its slots are refilled in
            groups), ``reset`` at least once; numpy or torch output.
        policy: drives the slots.
        episodes: E, at least the number of slots.

    Raises:
        ValueError: the environment is not of that kind, has more slots than episodes, or dropped every episode.
    """
    native = _check(envs, episodes)
    num_envs = envs.num_envs
    started = np.full(num_envs, -1, dtype=np.int64)  # which episode of the collection each slot plays
    started[:] = np.arange(num_envs)
    next_episode = num_envs
    policy.reset_slots(np.arange(num_envs))
    obs, _ = envs.reset()
    book = _Book(episodes, obs, native.prompt_lengths)
    live = np.ones(num_envs, dtype=np.bool_)
    # Refilling in groups: one prefill costs as much as several decode steps, so it waits for company.
    group = max(1, num_envs // 8)
    while live.any():
        # 1) one token for every live slot
        slots = np.flatnonzero(live)
        step = policy.act(obs if live.all() else obs[slots], slots)
        actions = torch.zeros(num_envs, dtype=torch.int64, device=step.tokens.device)
        actions[slots] = step.tokens
        book.write(started[slots], native.response_lengths[slots], step)
        obs, _, _, _, info = envs.step(actions)
        # 2) what ended: keep it, and the value of where truncated texts stopped; its rewards may come later
        ended = endings(info)
        if ended:
            done = np.array([ending.slot for ending in ended])
            cut = np.array([ending.slot for ending in ended if ending.truncated], dtype=np.int64)
            book.close(started[done], ended, obs[done])
            if len(cut):
                book.bootstrap(started[cut], policy.act(obs[cut], cut).values)
            policy.reset_slots(done)
            live[done] = False
        book.release(releases(info))
        # 3) refill free slots in groups
        free = np.flatnonzero(~live)[: episodes - next_episode]
        if len(free) >= group or (len(free) and not live.any()):
            mask = np.zeros(num_envs, dtype=np.bool_)
            mask[free] = True
            obs, _ = envs.reset(options={"reset_mask": mask})
            started[free] = np.arange(next_episode, next_episode + len(free))
            book.prompt_lengths[started[free]] = native.prompt_lengths[free]
            next_episode += len(free)
            live[free] = True
    book.release(drain(envs))
    return book.rollout()


class _Book:
    """The rows of a collection while it is written: sampled figures on the device, released ones on the host."""

    def __init__(self, episodes: int, obs: Any, prompt_lengths: np.ndarray) -> None:
        obs = torch.as_tensor(obs)
        self.device = obs.device
        length = obs.shape[1]
        self.ids = torch.zeros(episodes, length, dtype=torch.int64, device=self.device)
        self.logprobs = torch.zeros(episodes, length, device=self.device)
        self.values = torch.zeros(episodes, length, device=self.device)
        self.final_values = torch.zeros(episodes, device=self.device)
        self.prompt_lengths = np.zeros(episodes, dtype=np.int64)
        self.prompt_lengths[: len(prompt_lengths)] = prompt_lengths
        self.row_of: dict[int, int] = {}  # by episode_id: releases may come late
        self.releases: list[Release | None] = [None] * episodes

    def write(self, rows: np.ndarray, columns: np.ndarray, step: Step) -> None:
        at = torch.from_numpy(rows).to(self.device), torch.from_numpy(columns).to(self.device)
        self.logprobs[at] = step.logprobs.to(self.device)
        self.values[at] = step.values.to(self.device)

    def close(self, rows: np.ndarray, ended: Sequence[Ending], obs: Any) -> None:
        self.ids[torch.from_numpy(rows).to(self.device)] = torch.as_tensor(obs).clamp(min=0)
        self.row_of |= {ending.episode_id: row for row, ending in zip(rows.tolist(), ended, strict=True)}

    def bootstrap(self, rows: np.ndarray, values: Tensor) -> None:
        self.final_values[torch.from_numpy(rows).to(self.device)] = values.to(self.device).float()

    def release(self, released: Sequence[Release]) -> None:
        for release in released:
            if release.episode_id in self.row_of:  # else it is owed to an earlier collection that was given up
                self.releases[self.row_of[release.episode_id]] = release

    def rollout(self) -> Rollout:
        ended = [release for release in self.releases if release is not None]
        if not ended:
            raise ValueError(
                f"all {len(self.releases)} episodes of the collection were dropped: none of them could be rewarded"
            )
        kept = np.array([release is not None for release in self.releases])
        rows = torch.from_numpy(np.flatnonzero(kept)).to(self.device)
        prompt_lengths = self.prompt_lengths[kept]
        count = np.array([release.num_tokens for release in ended])
        width = int(count.max())
        length = int((prompt_lengths + count).max())

        def table(name: str, dtype: Any, blank: float = 0) -> Tensor:
            out = np.full((len(ended), width), blank, dtype=dtype)
            for row, release in zip(out, ended, strict=True):
                row[: release.num_tokens] = getattr(release, name)
            return torch.from_numpy(out).to(self.device)

        def column(name: str) -> Tensor:
            return torch.tensor([getattr(release, name) for release in ended], device=self.device)

        return Rollout(
            ids=self.ids[rows, :length],
            prompt_lengths=torch.from_numpy(prompt_lengths).to(self.device),
            num_tokens=torch.from_numpy(count).to(self.device),
            agent_mask=table("agent_mask", np.bool_),
            token_rewards=table("token_rewards", np.float32),
            streams=table("streams", np.int64, -1),
            logprobs=self.logprobs[rows, :width],
            values=self.values[rows, :width],
            ref_logprobs=None,
            policy_version=torch.zeros(len(ended), width, dtype=torch.int64, device=self.device),
            final_values=self.final_values[rows],
            terminated=column("terminated"),
            truncated=column("truncated"),
            episode_id=column("episode_id"),
            group_id=column("group_id"),
            is_success=column("is_success"),
            ledger=Ledger.mean([release.ledger for release in ended]),
        )


def _check(envs: gym.vector.VectorEnv[Any, Any, Any], episodes: int) -> TextGenVectorEnv:
    mode = envs.metadata.get("autoreset_mode")
    native = envs.unwrapped
    if not isinstance(native, TextGenVectorEnv):
        raise ValueError(
            f"the environment is a {type(envs.unwrapped).__name__}; collect drives the native vector environment, "
            "TextGenVectorEnv: gym.make_vec without vectorization_mode gives it"
        )
    if mode is not AutoresetMode.DISABLED:
        raise ValueError(
            f"the environment's autoreset_mode is {mode}; collect refills slots in groups: make it with "
            'gym.make_vec("TextGen-v0", ..., autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED)'
        )
    if not isinstance(envs.single_observation_space, gym.spaces.Box):
        raise ValueError('collect reads the observation "tokens"; make the environment without observation="dict"')
    if episodes < envs.num_envs:
        raise ValueError(f"episodes is {episodes} but there are {envs.num_envs} slots; use at most as many slots as episodes")
    return native
