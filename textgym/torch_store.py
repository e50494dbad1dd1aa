"""The texts of all slots as torch tensors: ``store.NumpyStore``'s twins, in the only module that imports torch.

Left out on purpose: anything that waits for the device, but for one small transfer per step: the codes that say which
slots ended. Ids come to the host once, when their episode has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textgym.action_masks import ALL, MaskTable
from textgym.rules import EOS, NO_TOKEN, Rules
from textgym.store import Limits, NumpyStore, check_actions, no_token

_LOOK, _BAD, _FORBIDDEN = 8, 16, 32  # bits beside the codes, so that one transfer carries all of them


class TorchStore:
    """Token ids of N slots, int64 (N, context_length) on ``device``, right-padded with -1."""

    def __init__(self, rules: Rules, num_envs: int, device: Any) -> None:
        self.rules = rules
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device is {str(device)!r} but torch sees no CUDA device; use device='cpu'")
        self.tokens = torch.full((num_envs, rules.context_length), NO_TOKEN, dtype=torch.int64, device=self.device)
        self.lengths = np.zeros(num_envs, dtype=np.int64)  # on the host: they follow from which slots acted
        self.starts = np.zeros(num_envs, dtype=np.int64)
        self.mask_numbers = np.full(num_envs, ALL, dtype=np.int64)  # on the host, kept by the vector door
        self.limits = Limits(rules, num_envs)
        self._all = torch.arange(num_envs, device=self.device)
        self._masks = None if rules.masks is None else DeviceMasks(rules.masks.table, self.device)
        self._stop_table = None if rules.stop_table is None else torch.from_numpy(rules.stop_table).to(self.device)

    def start(self, slots: npt.NDArray[np.int64], prompts: Sequence[npt.NDArray[np.int64]]) -> None:
        """Put new prompts into ``slots``: one transfer for all."""
        rows = np.full((len(slots), self.rules.context_length), NO_TOKEN, dtype=np.int64)
        for row, ids in zip(rows, prompts, strict=True):
            row[: len(ids)] = ids
        self.lengths[slots] = self.starts[slots] = [len(ids) for ids in prompts]
        self.limits.start(slots, self.starts[slots])
        self.tokens[torch.as_tensor(slots, device=self.device)] = torch.from_numpy(rows).to(self.device)

    def insert(self, slot: int, ids: npt.NDArray[np.int64]) -> None:
        """Append a reply to one slot; see ``NumpyStore.insert``."""
        end = self.lengths[slot] + len(ids)
        self.tokens[slot, self.lengths[slot] : end] = torch.from_numpy(ids).to(self.device)
        self.lengths[slot] = end
        self.limits.reply(slot, len(ids), int(end))

    def append(self, actions: Any, slots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_] | None]:
        """Append one token to each acting slot; see ``NumpyStore.append``."""
        if isinstance(actions, np.ndarray) and actions.dtype.kind == "u":
            actions = actions.astype(np.int64)  # torch has few operations for unsigned integers
        actions = torch.as_tensor(actions, device=self.device)
        integers = not (actions.is_floating_point() or actions.is_complex() or actions.dtype == torch.bool)
        check_actions(actions.shape, integers, actions.dtype, len(self.lengths))
        actions = actions.to(torch.int64)
        everyone = len(slots) == len(self.lengths)
        rows = self._all if everyone else torch.from_numpy(slots).to(self.device)
        taken = actions if everyone else actions[rows]
        bad = (taken < 0) | (taken >= self.rules.vocab_size)
        packed = (taken == self.rules.eos_token_id) * EOS + bad * _BAD
        if self._stop_table is not None:
            packed = packed + self._stop_table[taken.clamp(0, self.rules.vocab_size - 1)] * _LOOK
        if self._masks is not None:
            numbers = torch.from_numpy(self.mask_numbers[slots]).to(self.device)
            packed = packed + ~self._masks.rows()[numbers, taken.clamp(0, self.rules.vocab_size - 1)] * _FORBIDDEN
        flags = np.zeros(len(self.lengths), dtype=np.int64)
        flags[slots] = packed.cpu().numpy()  # the step's one wait for the device
        for slot in np.flatnonzero(flags & _BAD)[:1]:
            raise no_token(actions[slot], slot, self.rules.vocab_size)
        if self.rules.masks is not None:
            for slot in np.flatnonzero(flags & _FORBIDDEN)[:1]:
                raise self.rules.masks.forbidden(actions[slot], self.mask_numbers[slot], f"slot {slot}")
        columns = torch.from_numpy(self.lengths[slots]).to(self.device)
        self.tokens[rows, columns] = taken
        self.lengths[slots] += 1
        codes = np.zeros(len(self.lengths), dtype=np.int8)
        codes[slots] = self.limits.codes(self.lengths)[slots]
        codes[(flags & EOS) > 0] = EOS
        return codes, None if self._stop_table is None else (flags & _LOOK) > 0

    def tokens_left(self) -> npt.NDArray[np.int64]:
        """Give how many tokens reach the limit of each text, or of its turn, int64 (N,), on the host."""
        return self.limits.left(self.lengths)

    def response(self, slot: int) -> npt.NDArray[np.int64]:
        """Copy the response of one slot so far to the host, int64 (t,)."""
        return self.tokens[slot, self.starts[slot] : self.lengths[slot]].cpu().numpy().copy()

    def responses(self, slots: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Give the responses of ``slots`` so far, int64 (t,) each: one transfer for all."""
        tokens = self.tokens.cpu().numpy()
        return [tokens[slot, self.starts[slot] : self.lengths[slot]] for slot in slots.tolist()]

    def action_masks(self) -> torch.Tensor:
        """Give the tokens that each slot may write next, bool (N, V)."""
        if self._masks is None:
            return torch.ones(len(self.tokens), self.rules.vocab_size, dtype=torch.bool, device=self.device)
        return self._masks.rows()[torch.from_numpy(self.mask_numbers).to(self.device)]

    def observation(self) -> Any:
        """Copy the observation of all slots."""
        tokens = self.tokens.clone()
        if not self.rules.dict_observation:
            return tokens
        lengths = torch.from_numpy(self.lengths[:, None].copy()).to(self.device)
        mask = self.action_masks().to(torch.int8)
        return {"tokens": tokens, "length": lengths, "action_mask": mask}

    def final_observation(self, slots: npt.NDArray[np.int64]) -> Any:
        """Copy the observations of all slots: tensors (N, ...), of use in ended ``slots``."""
        return self.observation()

    def output(self, value: Any) -> Any:
        """Hand out arrays, and infos of arrays, as tensors on the device; text stays as it is."""
        return _as_tensors(value, self.device)


class DeviceMasks:
    """The rows of a task's ``MaskTable`` on a device: each is moved there once.

    Args:
        table: may grow.
        device: where the rows are wanted.
    """

    def __init__(self, table: MaskTable, device: torch.device) -> None:
        self.table = table
        self._rows = torch.from_numpy(table.rows.copy()).to(device)

    def rows(self) -> torch.Tensor:
        """Give all masks, bool (M, V)."""
        if (held := len(self._rows)) < len(self.table):
            new = torch.from_numpy(self.table.rows[held:].copy()).to(self._rows.device)
            self._rows = torch.cat([self._rows, new])
        return self._rows


class HostStore(NumpyStore):
    """Token ids in the host's memory, handed out as tensors: numpy's calls cost a third of torch's on so few numbers."""

    def append(self, actions: Any, slots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_] | None]:
        """Append one token to each acting slot; see ``NumpyStore.append``."""
        return super().append(actions.cpu().numpy() if isinstance(actions, torch.Tensor) else actions, slots)

    def observation(self) -> Any:
        """Copy the observation of all slots."""
        return _as_tensors(super().observation())

    def final_observation(self, slots: npt.NDArray[np.int64]) -> Any:
        """Copy the observations of all slots: tensors (N, ...), of use in ended ``slots``."""
        return self.observation()

    def output(self, value: Any) -> Any:
        """Hand out arrays, and infos of arrays, as tensors; text stays as it is."""
        return _as_tensors(value)


def _as_tensors(value: Any, device: torch.device | None = None) -> Any:
    """Make tensors of arrays, also inside dicts, on ``device``; None: in the arrays' own memory."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return value
        return torch.from_numpy(value) if device is None else torch.from_numpy(value).to(device)
    if isinstance(value, dict):
        return {key: _as_tensors(item, device) for key, item in value.items()}
    return value
