"""The native vector door: N texts at once, with no per-environment Python in a step.

Left out on purpose: a second way to score. Texts live in a store (numpy or torch), everything else is ``Rules``, and infos
are laid out as Gymnasium's own ``_add_info`` does, so that they are what ``SyncVectorEnv`` gives in each autoreset mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from textgym.action_masks import ALL
from textgym.episode import Episode, Release
from textgym.late import LateReleases
from textgym.output import make_store
from textgym.pool import Job
from textgym.render import RENDER_FPS, Renderer
from textgym.rules import RUNNING, Rules, check_options, episode_return
from textgym.step_infos import infos_as
from textgym.texts import Texts


class TextGenVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """N texts at once; see ``TextGenEnv`` for spaces, rewards and endings.

    Args:
        num_envs: number of slots, N.
        task: see ``TextGenEnv``.
        autoreset_mode: SAME_STEP (default), NEXT_STEP or DISABLED, as ``gymnasium.vector.AutoresetMode`` or its value.
            Under DISABLED the actions of ended slots are ignored (unchanged observation, reward 0, no second release)
            until ``reset(options={"reset_mask": mask})``, so that slots can be refilled in groups; a step in which no slot
            is running is an error.
        output: "numpy", or "torch": every array a tensor on ``device``; ``final_obs`` is then one tensor, valid where
            ``_final_obs``.
        device: where the tensors of ``output="torch"`` live.
        group_size: slots of one group see the same prompts (slot i is seeded ``seed + i // group_size``).
        keep_episodes: keep what was released for ``take_episodes``; who asks for it must take it.
        reward_workers: 0 rewards episodes in the step in which they end. More: that many workers reward them while other
            texts go on; the end step pays 0.0 and says ``release_pending``, and ``textgym.releases(infos)`` reads the release
            in a later step, by ``episode_id``. ``drain`` hands out what is still due.
        reward_worker_kind: "thread", or "process" (spawned; the task must be picklable, and lives there in copies).
        reward_timeout: seconds that one call of the task may take; None: no limit.
        max_pending: how many episodes may wait for their rewards before a step waits for the workers; default: 4 N.
        on_reward_error: "raise" the error of an episode's reward in the next step (nothing else is lost, and one may go on), or
            "drop" the episode: ``textgym.info.dropped(infos)`` names it, ``num_dropped`` counts.
        observation: "tokens" or "dict".
        infos: "arrays", as Gymnasium's Sync and Async vector environments write them; or "objects", for a driver in the same
            process that reads with ``textgym.releases``: no arrays, but ``infos["ended"]``, a list of ``textgym.info.Ending``,
            and ``infos["released"]``, of ``Release`` (under SAME_STEP in ``final_info``, as arrays are; late ones beside it).
        info_text: add prompt, text and ended_by to infos, as object arrays.
        render_mode: "ansi" or "rgb_array": ``render`` draws every slot.
        max_episode_steps: another name for ``max_new_tokens`` (``gym.make_vec`` uses it).
        task_kwargs: arguments of the task's constructor.

    Raises:
        ValueError: an argument is not allowed; says what is.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own way)
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    _late: LateReleases | None = None  # here too: Gymnasium closes what a constructor left half built

    def __init__(
        self,
        num_envs: int = 1,
        task: Any = None,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        output: Literal["numpy", "torch"] = "numpy",
        device: Any = "cpu",
        group_size: int = 1,
        keep_episodes: bool = False,
        reward_workers: int = 0,
        reward_worker_kind: Literal["thread", "process"] = "thread",
        reward_timeout: float | None = None,
        max_pending: int | None = None,
        on_reward_error: Literal["raise", "drop"] = "raise",
        observation: Literal["tokens", "dict"] = "tokens",
        infos: Literal["arrays", "objects"] = "arrays",
        info_text: bool = False,
        max_episode_steps: int | None = None,
        render_mode: Literal["ansi", "rgb_array"] | None = None,
        **task_kwargs: Any,
    ) -> None:
        if max_episode_steps is not None and task_kwargs.get("max_new_tokens", max_episode_steps) != max_episode_steps:
            other = task_kwargs["max_new_tokens"]
            raise ValueError(f"max_episode_steps is {max_episode_steps} and max_new_tokens {other}: two names of one limit")
        if num_envs < 1 or group_size < 1 or num_envs % group_size:
            raise ValueError(f"num_envs is {num_envs} and group_size {group_size}; num_envs is a multiple of group_size")
        self.num_envs = num_envs
        self.group_size = group_size
        self.rules = Rules(
            task, observation=observation, info_text=info_text, max_episode_steps=max_episode_steps, **task_kwargs
        )
        modes = {name: mode for mode in AutoresetMode for name in (mode, mode.value, mode.name)}
        if autoreset_mode not in modes:
            raise ValueError(f"autoreset_mode is {autoreset_mode!r}; allowed are {', '.join(m.value for m in AutoresetMode)}")
        self.autoreset_mode = modes[autoreset_mode]
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self._renderer = Renderer(render_mode, self.rules.tokenizer, allowed=("ansi", "rgb_array"))
        self._shown: list[tuple[Episode, Release] | None] = [None] * num_envs  # released texts, until their slot starts anew
        self.single_observation_space = self.rules.observation_space
        self.single_action_space = self.rules.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.infos = infos
        self._writer = infos_as(infos, self.rules, num_envs)
        self._store: Any = make_store(self.rules, num_envs, output, device)
        self.mask_numbers: npt.NDArray[np.int64] = self._store.mask_numbers
        """Which mask of ``rules.masks.table`` each slot has, int64 (N,), on the host: written to, so copy it to keep it."""
        self._texts = Texts(self.rules, self._store, num_envs, group_size)
        self._broken = False
        self._kept: list[tuple[Episode, Release]] | None = [] if keep_episodes else None
        late = {"kind": reward_worker_kind, "timeout": reward_timeout, "max_pending": max_pending, "on_error": on_reward_error}
        if reward_workers != 0:
            self._late = LateReleases(self.rules.release, num_envs, workers=reward_workers, **late)
        elif late != {"kind": "thread", "timeout": None, "max_pending": None, "on_error": "raise"}:
            raise ValueError(f"{late} are options of reward workers; give reward_workers=1 or more with them")

    @property
    def response_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens that each slot's response has so far, replies included: int64 (N,), on the host."""
        return self._store.lengths - self._store.starts

    @property
    def prompt_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each slot's prompt: int64 (N,), on the host."""
        return self._store.starts.copy()

    @property
    def text_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each slot's text, prompt and response: int64 (N,), on the host."""
        return self._store.lengths.copy()

    @property
    def tokens_left(self) -> npt.NDArray[np.int64]:
        """Tokens that reach the limit of each running text, or of its turn: int64 (N,), on the host.

        Before that a text ends, or is answered, only after ``rules.pausing_tokens`` and end-of-text.
        """
        return self._store.tokens_left()

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """One generator per slot, as SyncVectorEnv has it."""
        return tuple(self._texts.generators[slot] for slot in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """One seed per slot, -1 where a slot was never seeded."""
        return tuple(self._texts.generators.seeds)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all slots, or in those of ``options["reset_mask"]`` (bool (N,)).

        Args:
            seed: slot i is seeded ``seed + i // group_size``, or with ``seed[i]``; None leaves the generators as they are.
            options: ``reset_mask``, ``prompt`` (a text or Prompt for every slot that starts). Never changed.

        Returns:
            Observations of all slots and an empty info.
        """
        options = check_options(options, ("prompt", "reset_mask"))
        mask = self._texts.masked(options.pop("reset_mask", None))
        slots = np.flatnonzero(mask)
        self._texts.generators.seed(slots.tolist(), seed)
        self._start(slots, options)
        self._broken = self._broken and not mask.all()
        if self.rules.masks is not None:
            self._ask_masks(slots)
        return self._store.observation(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Append one token to every running text.

        Args:
            actions: token ids (N,).

        Returns:
            Observations, rewards float64 (N,), terminated bool (N,), truncated bool (N,), infos. Where episodes ended,
            ``textgym.releases(infos)`` reads their token rewards.

        Raises:
            ValueError: an action is no token, or one that the slot's action mask leaves out; names the slot.
            gymnasium.error.ResetNeeded: no slot was ever reset.
        """
        slots = self._acting()
        codes = self._write(actions, slots)
        # NEXT_STEP: slots that ended in the step before start anew instead of acting
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._texts.idle.any():
            self._start(np.flatnonzero(self._texts.idle), {})
        return self._settle(codes)

    def step_many(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take k steps at once, for a driver that knows the actions beforehand: what k calls of ``step`` do.

        An episode that ends takes no action of later rows, so that every slot ends at most once, and everything is laid out as
        one step's. Under DISABLED only: nothing starts in between.

        Args:
            actions: token ids (k, N), k at least 1.

        Returns:
            Observations after the last step, and the other four as ``step`` does, of all episodes that ended.

        Raises:
            ValueError: as ``step`` (where a later row is refused those before it were taken, so that only a reset helps);
                actions of another shape; another autoreset mode.
            gymnasium.error.ResetNeeded: no slot is running any more when a row comes.
        """
        if self.autoreset_mode is not AutoresetMode.DISABLED:
            raise ValueError(f"step_many starts no episodes, but autoreset_mode is {self.autoreset_mode.value}; use step")
        actions = actions if hasattr(actions, "shape") else np.asarray(actions)
        if len(actions.shape) != 2 or len(actions) == 0:
            raise ValueError(f"actions have shape {tuple(actions.shape)}; give (k, {self.num_envs}), k at least 1")
        slots = self._acting()
        codes = np.zeros(self.num_envs, dtype=np.int8)
        for i, row in enumerate(actions):
            if len(slots) == 0:
                raise gym.error.ResetNeeded(f"every episode had ended after {i} of {len(actions)} steps; give no more of them")
            if i and self.rules.masks is not None:
                self._ask_masks(slots)
            written = self._write(row, slots)
            if any(written.tolist()):  # quicker than numpy's any
                codes |= written
                slots = slots[written[slots] == RUNNING]
        return self._settle(codes)

    def _acting(self) -> npt.NDArray[np.int64]:
        """Give the slots that act in this step; raises where there is none that could."""
        slots = (~self._texts.idle).nonzero()[0]
        if self._broken or (len(slots) == 0 and all(prompt is None for prompt in self._texts.prompts)):
            raise gym.error.ResetNeeded("no episode is running, or the last step raised an error; call reset() before step()")
        if self._late is not None:
            self._late.raise_failed()
        if len(slots) == 0 and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise gym.error.ResetNeeded(
                'every episode has ended; start others with reset(options={"reset_mask": ended}), ended being the slots that '
                "were terminated or truncated since their last reset, or make the environment with another autoreset_mode"
            )
        return slots

    def _write(self, actions: Any, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Append a token to the texts in ``slots``, with the replies that follow it. Returns codes (N,): what ended."""
        codes, look = self._store.append(actions, slots)
        self._broken = True  # until the step is through: what the task raises below leaves texts that nobody scored
        self._texts.follow(codes, look)
        return codes

    def _ask_masks(self, slots: npt.NDArray[np.int64]) -> None:
        broken, self._broken = self._broken, True  # what the task raises leaves slots without a mask
        self._texts.ask_masks(slots)
        self._broken = broken

    def _start(self, slots: npt.NDArray[np.int64], options: dict[str, Any]) -> None:
        self._texts.start(slots, options)
        for slot in slots.tolist():
            self._shown[slot] = None

    def _settle(self, codes: npt.NDArray[np.int8]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Release what ended, and give what a step gives."""
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        if len(ended := codes.nonzero()[0]):
            infos = self._finish(ended, codes, rewards, terminated, truncated)
        if self.rules.masks is not None and not self._texts.idle.all():
            self._ask_masks(np.flatnonzero(~self._texts.idle))
        # What workers have rewarded meanwhile
        if self._late is not None:
            infos |= self._deliver(self._late)
        self._broken = False
        output = self._store.output
        return self._store.observation(), output(rewards), output(terminated), output(truncated), output(infos)

    def take_episodes(self) -> list[tuple[Episode, Release]]:
        """Hand over the episodes that ended since the last call, with their releases; needs ``keep_episodes=True``."""
        if self._kept is None:
            raise ValueError("episodes are not kept; make the environment with keep_episodes=True")
        kept, self._kept = self._kept, []
        return kept

    def _finish(
        self,
        ended: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int8],
        rewards: npt.NDArray[np.float64],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
    ) -> dict[str, Any]:
        """Score the episodes of the ``ended`` slots, fill their rewards and flags, and write the infos."""
        self._texts.idle[ended] = True
        self._store.mask_numbers[ended] = ALL
        slots = ended.tolist()
        episodes = [self._texts.episode(slot, int(codes[slot])) for slot in slots]
        pairs = list(zip(slots, episodes, strict=True))
        # Slot by slot: few end in one step, and between two passes of a model each of numpy's functions is slow at first.
        for slot, episode in pairs:
            self._texts.counts[slot] += 1
            cut = self.rules.truncates(episode)
            truncated[slot], terminated[slot] = cut, not cut
        if self._late is None:
            released = list(zip(episodes, self.rules.release(episodes, slots), strict=True))
            for _, release in released:
                rewards[release.slot] = episode_return(release)
            self._remember(released)
            infos = self._writer.released(released)
        else:
            self._late.submit([Job(slot, episode) for slot, episode in pairs])
            infos = self._writer.pending(pairs)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = {"final_info": infos, "_final_info": codes > 0, "final_obs": self._store.final_observation(ended)}
            infos["_final_obs"] = codes > 0
            self._start(ended, {})
        return infos

    def _remember(self, released: list[tuple[Episode, Release]]) -> None:
        """Keep released episodes to show them, and for who takes them, where that was asked for."""
        if self.render_mode is not None:
            for episode, release in released:
                last = int(self._texts.counts[release.slot]) - 1  # a release that comes late may be of an earlier episode
                if self._texts.idle[release.slot] and release.episode_id == self._texts.episode_id(release.slot, last):
                    self._shown[release.slot] = (episode, release)
        if self._kept is not None:
            self._kept += released

    def _deliver(self, late: LateReleases) -> dict[str, Any]:
        """Write the infos of what is due: at most one release per slot and step."""
        released, failed = late.take()
        self._remember(released)
        infos = self._writer.late(released) if released else {}
        return infos | self._writer.dropped(failed) if failed else infos

    def render(self) -> tuple[Any, ...] | None:
        """Draw every slot's text, N of them: str, or uint8 (height, width, 3); None without a render mode.

        A text that ended shows its rewards until its slot starts anew: under SAME_STEP that is at once.
        """
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing without a render_mode; give one to make_vec, e.g. render_mode='ansi'")
            return None
        if any(prompt is None for prompt in self._texts.prompts):
            raise gym.error.ResetNeeded("there is no text to draw in some slot; call reset() before render()")
        shown = [self._shown[slot] or (self._texts.episode(slot, RUNNING), None) for slot in range(self.num_envs)]
        return tuple(self._renderer.draw(episode, release) for episode, release in shown)

    def action_masks(self) -> Any:
        """Give the tokens that the task allows next, bool (N, V): all where it has no masks, and in slots without a text."""
        return self._store.output(self._store.action_masks())

    def as_output(self, value: Any) -> Any:
        """Hand an array, or a dict of them, out as this environment does: numpy, or tensors on its device."""
        return self._store.output(value)

    def drain(self) -> list[Release]:
        """Wait for the releases that are still due, and hand them out; an environment without workers owes none.

        Raises:
            Exception: what rewarding an episode raised, under ``on_reward_error="raise"``; the others stay due, for the next
                call.
        """
        if self._late is None:
            return []
        due = self._late.drain()
        if self._kept is not None:
            self._kept.extend(due)
        return [release for _, release in due]

    @property
    def releases_late(self) -> bool:
        """Whether reward workers release episodes after the step in which they end."""
        return self._late is not None

    @property
    def num_dropped(self) -> int:
        """Episodes given up so far because their reward failed, under ``on_reward_error="drop"``."""
        return 0 if self._late is None else self._late.num_dropped

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the reward workers; warns where releases are still due (``drain`` first)."""
        if self._late is not None:
            self._late.close()
