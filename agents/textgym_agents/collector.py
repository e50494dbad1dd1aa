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
from textgym.info import Ending, endings
from textgym.pool import said
from textgym.torch_store import DeviceMasks
from textgym.vector_wrappers import drain, takes_many
from textgym_agents.ahead import Ahead
from textgym_agents.guard import act
from textgym_agents.policy import Following, Step
from textgym_agents.rollout import Policy, Rollout, lay_out
from textgym_agents.tape import Ended, Tape


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
        told_ahead = "ahead" in parameters and masks is None and takes_many(envs)
        self._pausing = self.native.rules.pausing_tokens if told_ahead else None
        device = torch.as_tensor(self.native.as_output(np.zeros(0))).device
        self._masks = None if masks is None else DeviceMasks(masks.table, device)
        self._live = np.zeros(envs.num_envs, dtype=np.bool_)
        self._ends = np.zeros(envs.num_envs, dtype=np.int64)  # the tape's length after each slot's last token
        self._order = np.zeros(envs.num_envs, dtype=np.int64)  # which episode of all each slot plays
        self._born = np.zeros(envs.num_envs, dtype=np.int64)  # version that began each slot's episode
        self._started = 0
        self._obs: Any = None
        self._slots = np.zeros(0, dtype=np.int64)  # those that are live
        self._actions = torch.zeros(envs.num_envs, dtype=torch.int64, device=device)
        self._tape = Tape(envs.num_envs, device)
        self._finished: list[Ended] = []
        self._num_finished = 0
        self._released: dict[int, Release] = {}  # by episode_id: they may come late

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
            self._set_live(np.arange(len(self._live)), False)
        self.policy.reset_slots(np.flatnonzero(~self._live | has_learned))
        self._tape.forget(self._slots)
        self._finished, self._num_finished, self._released = [], 0, {}
        self._forget_what_is_owed()
        try:
            self._play(episodes)
            self._keep(drain(self.envs))
        except BaseException as error:
            self._set_live(self._slots, False)  # what was running is given up: the next collection starts anew
            if self._num_finished:
                error.add_note(f"{self._num_finished} episodes of the collection had ended and are given up with it")
            raise
        self.version += 1
        masks = None if self._masks is None else self._masks.rows()
        return lay_out(self._finished, self._released, self._tape, self.version - 1, masks)

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
            if not self._step(self._ahead(first, episodes)):
                continue
            wanted = self._wanted(first, episodes)
            free = self._free()
            if wanted and (len(free) >= wanted or len(self._slots) == 0):
                self._refill(free[: self._may_start(first, episodes)])

    def _wanted(self, first: int, episodes: int) -> int:
        """Give how many free slots are refilled together; 0: none is. One prefill costs as much as several decode steps."""
        return min(max(1, len(self._live) // 6), self._may_start(first, episodes))

    def _free(self) -> npt.NDArray[np.int64]:
        """Give the slots of groups in which no text is running: a group that does not start together is none ever after."""
        size = self.native.group_size
        whole = ~self._live if size == 1 else np.repeat(~self._live.reshape(-1, size).any(1), size)
        return whole.nonzero()[0]

    def _is_complete(self, episodes: int) -> bool:
        if not self.carry_over:
            return len(self._slots) == 0
        return self._num_finished >= episodes and not self._too_old().any()

    def _too_old(self) -> npt.NDArray[np.bool_]:
        """Say which running episodes began so long ago that they cannot wait for the next collection."""
        return self._live & (self.version + 1 - self._born > self.max_staleness)

    def _may_start(self, first: int, episodes: int) -> int:
        if not self.carry_over:
            return first + episodes - self._started
        return len(self._live) if self._num_finished < episodes else 0  # else only what is too old is waited for

    def _refill(self, slots: npt.NDArray[np.int64]) -> None:
        """Start episodes in ``slots``."""
        if len(slots) == 0:
            return
        mask = np.zeros(len(self._live), dtype=np.bool_)
        mask[slots] = True
        self._obs, _ = self.envs.reset(options=None if mask.all() else {"reset_mask": mask})
        self._set_live(slots, True)
        self._tape.begin(slots)
        self._born[slots] = self.version
        self._order[slots] = np.arange(self._started, self._started + len(slots))
        self._started += len(slots)

    def _set_live(self, slots: npt.NDArray[np.int64], live: bool) -> None:
        self._live[slots] = live
        self._slots = self._live.nonzero()[0]  # a third of what np.flatnonzero costs

    def _ahead(self, first: int, episodes: int) -> Ahead | None:
        """Say what is known of the steps to come: up to the one after which texts may be started, or the collection be done."""
        if self._pausing is None:
            return None
        rules, texts = self.native.rules, len(self._live)
        if wanted := self._wanted(first, episodes):
            texts = wanted - (len(self._live) - len(self._slots))
        if self.carry_over:
            texts = min(texts, episodes - self._num_finished)
        # What is cut off needs a value of its end, from the rows that hold it.
        ends_at_limit = not rules.has_turns and rules.task.length_limit == "terminate"
        left = self.native.tokens_left[self._slots]
        return Ahead(left, ends_at_limit, self._pausing, rules.eos_token_id, max(1, texts))

    def _step(self, ahead: Ahead | None) -> bool:
        """Write one token in every live slot, and keep what ended. Returns whether something did."""
        slots = self._slots
        step = self._act(slots, ahead)
        numbers = None if self._masks is None else self.native.mask_numbers[slots]
        self._tape.write(slots, step, self.version, numbers)
        if step.following:
            info = self._step_many([Following(slots, step.tokens, step.logprobs, step.values), *step.following])
        else:
            self._obs, _, _, _, info = self.envs.step(self._actions_of(slots, step.tokens))
            self._ends.fill(len(self._tape))
        if not info:
            return False
        ended = endings(info)
        if ended:
            self._end(ended)
        self._keep(releases(info))
        return bool(ended)

    def _step_many(self, steps: Sequence[Following]) -> dict[str, Any]:
        """Take the steps that the policy has sampled, the first of which is on the tape already."""
        actions = np.zeros((len(steps), len(self._live)), dtype=np.int64)
        for number, (row, step) in enumerate(zip(actions, steps, strict=True)):
            row[step.slots] = step.tokens.cpu().numpy()
            if number:
                self._tape.write(step.slots, step, self.version)
            self._ends[step.slots] = len(self._tape)
        self._obs, _, _, _, info = self.envs.step_many(actions)  # type: ignore[attr-defined]
        return info

    def _end(self, ended: Sequence[Ending]) -> None:
        """Keep the texts of episodes that ended, and where their figures are."""
        slots, episode_ids = (np.array(column) for column in zip(*(each[:2] for each in ended), strict=True))
        values = np.zeros(len(slots), dtype=np.float32)
        if any(each.truncated for each in ended):
            truncated = np.array([each.truncated for each in ended])
            values[truncated] = self._act(slots[truncated]).values.detach().float().cpu().numpy()
        prompt_lengths, ids = self.native.prompt_lengths[slots], torch.as_tensor(_rows(self._obs, slots))
        begun, end = self._tape.begun(slots), self._ends[slots]
        self._finished.append(Ended(self._order[slots], episode_ids, slots, begun, end, prompt_lengths, values, ids))
        self._num_finished += len(slots)
        self.policy.reset_slots(slots)
        self._set_live(slots, False)

    def _act(self, slots: npt.NDArray[np.int64], ahead: Ahead | None = None) -> Step:
        obs = self._obs if len(slots) == len(self._live) else _rows(self._obs, slots)
        told: dict[str, Any] = {}
        if self._tells_lengths:
            told["lengths"] = self.native.text_lengths[slots]
        if ahead is not None:
            told["ahead"] = ahead
        if self._masks is not None:
            rows = self._masks.rows()
            told["allowed"] = rows[torch.from_numpy(self.native.mask_numbers[slots]).to(rows.device)]
        return act(self.policy, obs, slots, self.native.rules.vocab_size, **told)

    def _actions_of(self, slots: npt.NDArray[np.int64], tokens: Tensor) -> Tensor:
        """Give the actions of all N slots, of which only ``slots`` act."""
        if len(slots) == len(self._actions):
            return tokens
        if self._actions.device.type == "cpu":  # numpy's calls cost a third of torch's on so few numbers
            self._actions.numpy()[slots] = tokens.cpu().numpy()
            return self._actions
        return self._actions.index_copy(0, torch.from_numpy(slots).to(self._actions.device), tokens.to(self._actions))

    def _keep(self, released: Sequence[Release]) -> None:
        self._released.update((release.episode_id, release) for release in released)


def _rows(obs: Any, slots: npt.NDArray[np.int64]) -> Any:
    """Copy the observations of ``slots``, (n, context_length)."""
    if isinstance(obs, Tensor) and obs.device.type == "cpu":
        return torch.from_numpy(obs.numpy()[slots])
    return obs[slots]


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
