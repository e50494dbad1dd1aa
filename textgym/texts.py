"""Which episode each slot of the vector door plays: its prompt, its number, what was answered, and what a token makes of it.

Left out on purpose: the ids, which are the store's, and rewards. ``text`` is its twin for the scalar door.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rules import EOS, RUNNING, TURN_ENDS, Rules
from textgym.seeds import SlotGenerators


class Texts:
    """The texts of N slots.

    Args:
        rules: of the task.
        store: holds their ids.
        num_envs: N.
        group_size: slots of one group see the same prompts.
    """

    def __init__(self, rules: Rules, store: Any, num_envs: int, group_size: int) -> None:
        self.rules = rules
        self.num_envs = num_envs
        self.group_size = group_size
        self._store = store
        self.generators = SlotGenerators(num_envs, group_size)
        self.prompts: list[Prompt | None] = [None] * num_envs
        self._replies: list[list[tuple[int, int]]] = [[] for _ in range(num_envs)]  # ranges that the environment wrote
        self.counts = np.zeros(num_envs, dtype=np.int64)
        """int64 (N,), episodes that each slot has started, less the running one."""
        self.idle = np.ones(num_envs, dtype=np.bool_)
        """bool (N,), slots in which no episode runs."""

    def episode(self, slot: int, code: int) -> Episode:
        """Build the episode of one slot, ended as ``code`` says."""
        prompt = self.prompts[slot]
        assert prompt is not None
        episode_id = self.episode_id(slot, int(self.counts[slot]))
        return self.rules.episode(prompt, self._store.response(slot), code, episode_id, self._replies[slot])

    def episode_id(self, slot: Any, count: Any) -> Any:
        """Give the number of a slot's episode of that ``count``; arrays of both give arrays."""
        return slot + self.num_envs * count

    def follow(self, codes: npt.NDArray[np.int8], look: npt.NDArray[np.bool_] | None) -> None:
        """Write into ``codes`` (N,), which a token was given, what stop strings and the task's replies make of them.

        Args:
            codes: as a store's ``append`` gives them.
            look: bool (N,), texts whose last token may have completed a stop string, or the task's text; None: none.
        """
        if look is not None:
            self._look(codes, look & (codes != EOS))
        if self.rules.has_turns:
            self._reply(codes)

    def _look(self, codes: npt.NDArray[np.int8], look: npt.NDArray[np.bool_]) -> None:
        for slot in np.flatnonzero(look):
            prompt = self.prompts[slot]
            assert prompt is not None
            code = self.rules.ending(prompt, self._store.response(int(slot)), self._replies[slot])
            if code != RUNNING:
                codes[slot] = code

    def _reply(self, codes: npt.NDArray[np.int8]) -> None:
        """Let the task answer the turns that ended, and set the codes to what that makes of their episodes."""
        for slot in np.flatnonzero(np.isin(codes, TURN_ENDS)).tolist():
            episode = self.episode(slot, int(codes[slot]))
            codes[slot], ids = self.rules.after(episode, int(codes[slot]))
            if codes[slot] == RUNNING:
                self._replies[slot].append((len(episode.ids), len(episode.ids) + len(ids)))
                self._store.insert(slot, ids)

    def ask_masks(self, slots: npt.NDArray[np.int64]) -> None:
        """Ask the task, which has action masks, for those of the texts in ``slots``."""
        masks = self.rules.masks
        assert masks is not None
        responses = self._store.responses(slots) if masks.need_texts else []
        prompts, ids = [self.prompts[slot] for slot in slots], self.episode_id(slots, self.counts[slots])
        self._store.mask_numbers[slots] = masks.numbers(prompts, responses, ids)

    def start(self, slots: npt.NDArray[np.int64], options: dict[str, Any]) -> None:
        """Start an episode in each of ``slots``, with the next prompt or ``options["prompt"]``."""
        # A running episode is given up; its number is not used again.
        counts = self.counts[slots] + ~self.idle[slots]
        groups = slots // self.group_size + (self.num_envs // self.group_size) * counts
        # All prompts are drawn before any text is touched: a prompt that does not fit leaves the others as they are.
        drawn = zip(slots.tolist(), groups.tolist(), strict=True)
        prompts = [self.rules.prompt(self.generators[slot], options, group) for slot, group in drawn]
        self._store.start(slots, [np.asarray(prompt.ids) for prompt in prompts])
        for slot, prompt in zip(slots.tolist(), prompts, strict=True):
            self.prompts[slot] = prompt
            self._replies[slot] = []
        self.counts[slots] = counts
        self.idle[slots] = False

    def masked(self, mask: Any) -> npt.NDArray[np.bool_]:
        """Read ``options["reset_mask"]``, bool (N,) with at least one True; None: all.

        Raises:
            ValueError: it is something else.
        """
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        array = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask)
        if array.shape != (self.num_envs,) or array.dtype != np.bool_ or not array.any():
            raise ValueError(
                f"options['reset_mask'] has shape {array.shape}, dtype {array.dtype} and {int(np.sum(array))} True; give "
                f"bool ({self.num_envs},) with at least one True"
            )
        return array
