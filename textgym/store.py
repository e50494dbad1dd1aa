"""The texts of all slots as one numpy array, for the vector door. ``torch_store`` is its twin on a device.

Left out on purpose: prompts, rewards, resets. A store appends one token to every acting slot and says which slots that
ended by their token or their length; there is no per-slot Python in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.action_masks import ALL
from textgym.episode import read_only
from textgym.rules import EOS, LENGTH, NO_TOKEN, RUNNING, TURN_LENGTH, Rules


class NumpyStore:
    """Token ids of N slots, int64 (N, context_length), right-padded with -1."""

    def __init__(self, rules: Rules, num_envs: int) -> None:
        self.rules = rules
        self.tokens = np.full((num_envs, rules.context_length), NO_TOKEN, dtype=np.int64)
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self.starts = np.zeros(num_envs, dtype=np.int64)  # prompt lengths
        self.mask_numbers = np.full(num_envs, ALL, dtype=np.int64)  # which action mask each slot has; kept by the vector door
        self.limits = Limits(rules, num_envs)
        self._far = 0  # tokens that every running text can still write before one of them can be at a limit

    def start(self, slots: npt.NDArray[np.int64], prompts: Sequence[npt.NDArray[np.int64]]) -> None:
        """Put new prompts into ``slots``."""
        for slot, ids in zip(slots, prompts, strict=True):
            self.tokens[slot] = NO_TOKEN
            self.tokens[slot, : len(ids)] = ids
            self.lengths[slot] = self.starts[slot] = len(ids)
        self.limits.start(slots, self.starts[slots])
        self._far = 0

    def insert(self, slot: int, ids: npt.NDArray[np.int64]) -> None:
        """Append a reply, int64 (n,), to one slot; it begins a new turn of the agent."""
        end = self.lengths[slot] + len(ids)
        self.tokens[slot, self.lengths[slot] : end] = ids
        self.lengths[slot] = end
        self.limits.reply(slot, len(ids), int(end))
        self._far = 0

    def append(self, actions: Any, slots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_] | None]:
        """Append one token to each acting slot.

        Args:
            actions: integers (N,); ignored where not acting.
            slots: int64 (n,), those that act.

        Returns:
            codes int8 (N,), EOS, LENGTH, TURN_LENGTH or RUNNING; and bool (N,), where the text has to be looked at, or None.

        Raises:
            ValueError: an acting slot's action is no token, or not allowed by its mask; nothing is appended then.
        """
        actions = np.asarray(actions)
        check_actions(actions.shape, actions.dtype.kind in "iu", actions.dtype, len(self.lengths))
        taken = actions[slots]
        tokens = taken.tolist()  # Python's own functions are quicker than numpy's on so few numbers
        if min(tokens, default=0) < 0 or max(tokens, default=0) >= self.rules.vocab_size:
            i = next(i for i, token in enumerate(tokens) if not 0 <= token < self.rules.vocab_size)
            raise no_token(tokens[i], slots[i], self.rules.vocab_size)
        if self.rules.masks is not None:
            allowed = self.rules.masks.table.rows[self.mask_numbers[slots], taken]
            for slot in slots[~allowed][:1]:
                raise self.rules.masks.forbidden(actions[slot], self.mask_numbers[slot], f"slot {slot}")
        ends = self.lengths[slots]
        self.tokens[slots, ends] = taken
        self.lengths[slots] = ends + 1
        codes = np.zeros(len(self.lengths), dtype=np.int8)
        if self._far > 0:
            self._far -= 1
        else:
            codes[slots] = self.limits.codes(self.lengths)[slots]
            left = self.limits.left(self.lengths)[slots].tolist()
            self._far = min((tokens for tokens in left if tokens > 0), default=1) - 1
        if self.rules.eos_token_id in tokens:
            codes[slots[taken == self.rules.eos_token_id]] = EOS
        if self.rules.stop_table is None:
            return codes, None
        look = np.zeros(len(self.lengths), dtype=np.bool_)
        look[slots] = self.rules.stop_table[taken]
        return codes, look

    def tokens_left(self) -> npt.NDArray[np.int64]:
        """Give how many tokens reach the limit of each text, or of its turn, int64 (N,)."""
        return self.limits.left(self.lengths)

    def response(self, slot: int) -> npt.NDArray[np.int64]:
        """Copy the response of one slot so far, int64 (t,)."""
        return self.tokens[slot, self.starts[slot] : self.lengths[slot]].copy()

    def responses(self, slots: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Give the responses of ``slots`` so far, int64 (t,) each, to be read only."""
        return [read_only(self.tokens[slot, self.starts[slot] : self.lengths[slot]]) for slot in slots.tolist()]

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Give the tokens that each slot may write next, bool (N, V)."""
        if self.rules.masks is None:
            return np.ones((len(self.tokens), self.rules.vocab_size), dtype=np.bool_)
        return self.rules.masks.table.rows[self.mask_numbers]

    def observation(self) -> Any:
        """Copy the observation of all slots."""
        tokens = self.tokens.copy()
        if not self.rules.dict_observation:
            return tokens
        mask = self.action_masks().astype(np.int8)
        return {"tokens": tokens, "length": self.lengths[:, None].copy(), "action_mask": mask}

    def final_observation(self, slots: npt.NDArray[np.int64]) -> Any:
        """Copy the observations of ended slots as SyncVectorEnv does: object (N,), None elsewhere."""
        array = np.full(len(self.lengths), fill_value=None, dtype=object)
        for slot in slots:
            row = self.tokens[slot].copy()
            if self.rules.dict_observation:
                mask = np.ones(self.rules.vocab_size, dtype=np.int8)
                array[slot] = {"tokens": row, "length": self.lengths[slot : slot + 1].copy(), "action_mask": mask}
            else:
                array[slot] = row
        return array

    def output(self, value: Any) -> Any:
        """Hand out arrays (and infos of arrays) as this store's users expect them: as they are."""
        return value


class Limits:
    """Where each slot's text and turn must end, in tokens from the prompt's first: two numbers per slot."""

    def __init__(self, rules: Rules, num_envs: int) -> None:
        self.rules = rules
        self._agent = np.zeros(num_envs, dtype=np.int64)  # where the agent has written all that it may
        self._room = np.zeros(num_envs, dtype=np.int64)
        self._text = np.zeros(num_envs, dtype=np.int64)  # the smaller of the two
        self._turn = np.zeros(num_envs, dtype=np.int64)

    def start(self, slots: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        """Set the limits of ``slots``, whose prompts have these lengths."""
        self._agent[slots] = lengths + self.rules.max_new_tokens
        self._room[slots] = lengths + self.rules.max_response_tokens
        self._text[slots] = np.minimum(self._agent[slots], self._room[slots])
        self._turn[slots] = lengths + (self.rules.max_turn_tokens or 0)

    def reply(self, slot: int, inserted: int, length: int) -> None:
        """Move the limits of a slot that got a reply of ``inserted`` tokens and is ``length`` tokens long now."""
        self._agent[slot] += inserted
        self._text[slot] = min(self._agent[slot], self._room[slot])
        self._turn[slot] = length + (self.rules.max_turn_tokens or 0)

    def codes(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Say which texts of these lengths (N,) end here: int8 (N,), LENGTH, TURN_LENGTH or RUNNING."""
        codes = (lengths >= self._text).astype(np.int8) * LENGTH
        if self.rules.max_turn_tokens is not None:
            codes[(codes == RUNNING) & (lengths >= self._turn)] = TURN_LENGTH
        return codes

    def left(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give how many more tokens end each text of these lengths (N,), or its turn: int64 (N,)."""
        end = self._text if self.rules.max_turn_tokens is None else np.minimum(self._text, self._turn)
        return end - lengths


def check_actions(shape: Sequence[int], integers: bool, dtype: Any, num_envs: int) -> None:
    """Raise ValueError where actions are not ``num_envs`` integers."""
    if tuple(shape) != (num_envs,) or not integers:
        raise ValueError(
            f"actions have shape {tuple(shape)} and dtype {dtype}; give integers of shape ({num_envs},), one token id per slot"
        )


def no_token(action: Any, slot: Any, vocab_size: int) -> ValueError:
    """Name an action that is no token."""
    return ValueError(f"action of slot {int(slot)} is {int(action)}; allowed are token ids 0..{vocab_size - 1}")
