"""``Collector`` and ``collect``: play a vector environment with a policy until the episodes of a collection are there.

Left out on purpose: learning, and rewards of any kind but those that the environment released. A collection is the first E
episodes *started*, all waited for: taking the first E that finish would favour short texts and bias the gradient. Carrying
unfinished episodes over into the next collection wastes no slot; each is used once, when it is done. The first one or two
collections of a run then hold more short texts than later ones do: the long ones are still being written.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from textgym import Release, TextGenVectorEnv, releases
from textgym.info import endings
from textgym.pool import said
from textgym.torch_store import DeviceMasks
from textgym.vector_wrappers import drain
from textgym_agents.guard import act
from textgym_agents.policy import Step
from textgym_agents.rollout import Played, Policy, Rollout, lay_out


def collect(envs: gym.vector.VectorEnv[Any, Any, Any], policy: Policy, episodes: int) -> Rollout:
    """Play the next ``episodes`` episodes to their end, whatever their lengths: one collection of a ``Collector``."""
    return Collector(envs, policy).collect(episodes)


class Collector:
    """Plays collection after collection.

    An environment with reward workers hands its releases out late; those of a collection are all waited for. Episodes that
    it drops (``on_reward_error="drop"``) are left out.

    Args:
        envs: a textgym vector environment with ``autoreset_mode=AutoresetMode.DISABLED`` (its slots are refilled in
            groups), ``reset`` at least once; numpy or torch output.
        policy: drives the slots.
        carry_over: carry episodes that are unfinished when a collection ends over into the next one, so that slots wait only
            for texts that would grow too old; their tokens were then sampled by several versions of the policy
            (``Rollout.policy_version``). Nobody else may step or reset the environment between two collections.
        max_staleness: with ``carry_over``, how many versions old a token may be when it is learned from; episodes that
            would exceed it are waited for. 0 waits for all.

    Raises:
        ValueError: the environment is not of that kind.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        policy: Policy,
        *,
        carry_over: bool = False,
        max_staleness: int = 4,
    ) -> None:
        self.native = _check(envs)
        if max_staleness < 0:
            raise ValueError(f"max_staleness is {max_staleness}; it must be at least 0")
        self.envs = envs
        self.policy = policy
        self.carry_over = carry_over
        self.max_staleness = max_staleness
        self.version = 0
        """Collections that are done: the version of the policy that plays the next one."""
        parameters = inspect.signature(policy.act).parameters
        self._tells_lengths = "lengths" in parameters
        masks = self.native.rules.masks
        if masks is not None and "allowed" not in parameters:
            raise ValueError(
                f"{type(self.native.rules.task).__name__} has action masks but {type(policy).__name__}.act does not ask for "
                "them; give act a parameter 'allowed', bool (n, V), and sample among those tokens"
            )
        device = torch.as_tensor(self.native.as_output(np.zeros(0))).device
        self._masks = None if masks is None else DeviceMasks(masks.table, device)
        self._live = np.zeros(envs.num_envs, dtype=np.bool_)
        self._order = np.zeros(envs.num_envs, dtype=np.int64)  # which episode of all each slot plays
        self._born = np.zeros(envs.num_envs, dtype=np.int64)  # version that began each slot's episode
        self._started = 0
        self._obs: Any = None
        self._tape: _Tape | None = None
        self._finished: dict[int, Played] = {}  # by episode_id: releases may come late

    def collect(self, episodes: int, *, has_learned: bool = True) -> Rollout:
        """Play one collection with the policy as it is now.

        Args:
            episodes: E, at least the number of slots. Without carry-over a collection is the first E episodes started; with
                it, at least E that finished: several may do so in the last step.
            has_learned: whether the policy may have changed since the last collection: what it has cached of texts carried
                over is then forgotten, and rebuilt by prefill. False keeps it.

        Raises:
            ValueError: there are more slots than episodes, the episodes are not whole groups of slots (without carry-over), or
                the environment dropped every episode.
        """
        if episodes < len(self._live):
            raise ValueError(
                f"episodes is {episodes} but there are {len(self._live)} slots; use at most as many slots as episodes"
            )
        if not self.carry_over and episodes % self.native.group_size:
            raise ValueError(
                f"episodes is {episodes} but slots are in groups of {self.native.group_size}, which see the same prompts; give "
                "a multiple, so that all groups are whole"
            )
        if not self.carry_over:
            self._live[:] = False
        self.policy.reset_slots(np.flatnonzero(~self._live | has_learned))
        self._finished = {}
        self._forget_what_is_owed()
        try:
            self._play(episodes)
            self._keep(drain(self.envs))
        except BaseException as error:
            self._live[:] = False  # what was running is given up: the next collection starts anew
            self._tape = None
            error.add_note(f"{len(self._finished)} episodes of the collection had ended and are given up with it")
            raise
        if self._tape is not None:
            self._tape.sign(np.flatnonzero(self._live), self.native.response_lengths, self.version)
        self.version += 1
        return lay_out(list(self._finished.values()), self.version - 1, None if self._masks is None else self._masks.rows())

    def _forget_what_is_owed(self) -> None:
        """Wait for late releases of a collection that was given up: its errors are none of this one's."""
        while True:
            try:
                drain(self.envs)
                return
            except Exception as error:  # one a call; the others stay due
                told = f"a reward of a collection given up before this one failed too: {said(error)}"
                warnings.warn(told, RuntimeWarning, stacklevel=4)

    def _play(self, episodes: int) -> None:
        first = self._started
        self._refill(self._free())
        while not self._is_complete(episodes):
            self._step()
            free = self._free()[: self._may_start(first, episodes)]
            # Refilling in groups: one prefill costs as much as several decode steps, so it waits for company.
            if len(free) >= max(1, len(self._live) // 8) or (len(free) and not self._live.any()):
                self._refill(free)

    def _free(self) -> npt.NDArray[np.int64]:
        """Give the slots of groups in which no text is running: a group that does not start together is none ever after."""
        size = self.native.group_size
        return np.flatnonzero(np.repeat(~self._live.reshape(-1, size).any(1), size))

    def _is_complete(self, episodes: int) -> bool:
        if not self.carry_over:
            return not self._live.any()
        return len(self._finished) >= episodes and not self._too_old().any()

    def _too_old(self) -> npt.NDArray[np.bool_]:
        """Say which running episodes began so long ago that they cannot wait for the next collection."""
        return self._live & (self.version + 1 - self._born > self.max_staleness)

    def _may_start(self, first: int, episodes: int) -> int:
        if not self.carry_over:
            return first + episodes - self._started
        return len(self._live) if len(self._finished) < episodes else 0  # else only what is too old is waited for

    def _refill(self, slots: npt.NDArray[np.int64]) -> None:
        """Start episodes in ``slots``."""
        if len(slots) == 0:
            return
        mask = np.zeros(len(self._live), dtype=np.bool_)
        mask[slots] = True
        self._obs, _ = self.envs.reset(options=None if mask.all() else {"reset_mask": mask})
        self._live[slots] = True
        self._born[slots] = self.version
        self._order[slots] = np.arange(self._started, self._started + len(slots))
        self._started += len(slots)

    def _step(self) -> None:
        """Write one token in every live slot, and keep what ended."""
        slots = np.flatnonzero(self._live)
        step = self._act(slots)
        if self._tape is None:
            self._tape = _Tape(len(self._live), torch.as_tensor(self._obs))
        columns = self.native.response_lengths[slots]
        self._tape.write(slots, columns, step)
        if self._masks is not None:
            self._tape.write_masks(slots, columns, self.native.mask_numbers[slots])
        self._obs, _, _, _, info = self.envs.step(self._tape.actions(slots, step.tokens))
        ended = endings(info)
        if ended:
            done = np.array([ending.slot for ending in ended])
            cut = np.array([ending.slot for ending in ended if ending.truncated], dtype=np.int64)
            final_values = dict(zip(cut.tolist(), self._act(cut).values.tolist(), strict=True)) if len(cut) else {}
            counts = [ending.num_tokens for ending in ended]
            for ending, played in zip(ended, self._tape.cut_out(done, counts, self._obs, self.version), strict=True):
                self._finished[ending.episode_id] = Played(
                    order=int(self._order[ending.slot]),
                    prompt_length=int(self.native.prompt_lengths[ending.slot]),
                    final_value=final_values.get(ending.slot, 0.0),
                    **played,
                )
            self.policy.reset_slots(done)
            self._live[done] = False
        self._keep(releases(info))

    def _act(self, slots: npt.NDArray[np.int64]) -> Step:
        obs = self._obs if len(slots) == len(self._live) else self._obs[slots]
        told: dict[str, Any] = {}
        if self._tells_lengths:
            told["lengths"] = (self.native.prompt_lengths + self.native.response_lengths)[slots]
        if self._masks is not None:
            rows = self._masks.rows()
            told["allowed"] = rows[torch.from_numpy(self.native.mask_numbers[slots]).to(rows.device)]
        return act(self.policy, obs, slots, self.native.rules.vocab_size, **told)

    def _keep(self, released: Sequence[Release]) -> None:
        for release in released:
            if release.episode_id in self._finished:  # else it is owed to an earlier collection that was given up
                self._finished[release.episode_id].release = release


class _Tape:
    """What was sampled in each slot's running episode, (N, context_length) each, on the observations' device."""

    def __init__(self, num_envs: int, obs: Tensor) -> None:
        self.device = obs.device
        self.logprobs = torch.zeros(num_envs, obs.shape[1], device=self.device)
        self.values = torch.zeros_like(self.logprobs)
        self.versions = torch.zeros_like(self.logprobs, dtype=torch.int64)
        self.mask_numbers: Tensor | None = None
        self._signed = np.zeros(num_envs, dtype=np.int64)  # tokens of each slot whose version is written down
        self._actions = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def write(self, slots: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], step: Step) -> None:
        """Note what was sampled for ``columns`` of ``slots``."""
        if self.device.type == "cpu":  # numpy's indexing costs a third of torch's on so few numbers
            self.logprobs.numpy()[slots, columns] = step.logprobs.detach().float().cpu().numpy()
            self.values.numpy()[slots, columns] = step.values.detach().float().cpu().numpy()
            return
        at = torch.from_numpy(slots).to(self.device), torch.from_numpy(columns).to(self.device)
        self.logprobs[at] = step.logprobs.to(self.logprobs)
        self.values[at] = step.values.to(self.values)

    def write_masks(self, slots: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> None:
        """Note under which action masks that was."""
        if self.mask_numbers is None:
            self.mask_numbers = torch.zeros_like(self.versions)
        at = torch.from_numpy(slots).to(self.device), torch.from_numpy(columns).to(self.device)
        self.mask_numbers[at] = torch.from_numpy(numbers).to(self.device)

    def actions(self, slots: npt.NDArray[np.int64], tokens: Tensor) -> Tensor:
        """Give the actions of all N slots, of which only ``slots`` act."""
        if len(slots) == len(self._actions):
            return tokens
        if self.device.type == "cpu":
            self._actions.numpy()[slots] = tokens.cpu().numpy()
            return self._actions
        return self._actions.index_copy(0, torch.from_numpy(slots).to(self.device), tokens.to(self._actions))

    def sign(self, slots: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], version: int) -> None:
        """Note that version ``version`` of the policy sampled what is not signed yet of the running episodes in ``slots``."""
        for slot in slots.tolist():
            self.versions[slot, self._signed[slot] : counts[slot]] = version
            self._signed[slot] = counts[slot]

    def cut_out(self, slots: npt.NDArray[np.int64], counts: Sequence[int], obs: Any, version: int) -> list[dict[str, Any]]:
        """Copy the rows of ``slots``, whose episodes ended with ``counts`` tokens, and blank them.

        Returns:
            Of each: ids, logprobs, values, versions, and mask_numbers where there are any; see ``Played``.
        """
        tables = {"logprobs": self.logprobs, "values": self.values, "versions": self.versions}
        if self.mask_numbers is not None:
            tables["mask_numbers"] = self.mask_numbers
        texts = torch.as_tensor(obs)
        played = []
        for slot, count in zip(slots.tolist(), counts, strict=True):
            self.versions[slot, self._signed[slot] : count] = version
            copies = {name: table[slot].clone() for name, table in tables.items()}
            played.append({"ids": texts[slot].clamp(min=0), **copies})
            for table in tables.values():
                table[slot] = 0  # tokens of the environment are skipped over, and must not hold an earlier episode's
        self._signed[slots] = 0
        return played


def _check(envs: gym.vector.VectorEnv[Any, Any, Any]) -> TextGenVectorEnv:
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
    return native
