"""Action masks: which tokens a task allows next, as numbered rows of one table.

Left out on purpose: grammars. A task says which row holds after each text; where the rows come from is its own affair. A text's
mask is one number then, so that recording it costs the same whatever the vocabulary, and each mask is held and moved once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.episode import Prompt, read_only
from textgym.tokenizer import TextTokenizer

ALL = 0  # the number of the mask that allows every token: of slots without a running text, and of padding
_NAMED = 12  # tokens that an error names


class MaskTable:
    """Masks over V tokens, numbered in the order in which they were added; number 0 allows every token.

    Masks may be added at any time and are never changed or removed. Each takes V bytes, on every device that uses it.

    Args:
        vocab_size: V, ``len(tokenizer)``.
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._rows = np.ones((1, vocab_size), dtype=np.bool_)
        self._numbers = {self._key(self._rows[0]): ALL}
        self.empty: list[int] = []
        """Numbers of the masks that allow nothing: none, or one."""

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """The masks, bool (M, V), read-only: True where a token is allowed."""
        return read_only(self._rows[: len(self)])

    def add(self, mask: npt.ArrayLike) -> int:
        """Give the number of a mask, bool (V,), and add it where it is new.

        Raises:
            ValueError: it is not bool (V,).
        """
        row = np.asarray(mask)
        if row.shape != (self.vocab_size,) or row.dtype != np.bool_:
            raise ValueError(
                f"a mask has shape {row.shape} and dtype {row.dtype}; give bool ({self.vocab_size},), True where a token is "
                "allowed, one entry per token of the tokenizer"
            )
        key = self._key(row)
        if key not in self._numbers:
            if len(self) == len(self._rows):
                self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._rows[len(self)] = row
            self._numbers[key] = len(self)
            if not row.any():
                self.empty.append(self._numbers[key])
        return self._numbers[key]

    @staticmethod
    def _key(row: npt.NDArray[np.bool_]) -> bytes:
        return np.packbits(row).tobytes()


class ActionMasks:
    """The masks of one task, asked for, checked, and enforced; both doors go through it.

    Args:
        task: has ``token_masks``, and ``mask_numbers`` where that is a ``MaskTable``.
        tokenizer: of the task.
        asks: whether the task has a ``mask_numbers`` of its own.

    Raises:
        ValueError: ``token_masks`` is neither a ``MaskTable`` nor a mask, or does not go with ``mask_numbers``.
    """

    def __init__(self, task: Any, tokenizer: TextTokenizer, asks: bool) -> None:
        self._task, self._tokenizer, self._asks = task, tokenizer, asks
        given = task.token_masks
        self._only = ALL  # the number of the one mask of a task that has no more
        if isinstance(given, MaskTable):
            self.table = given
        else:
            self.table = MaskTable(tokenizer.vocab_size)
            self._only = self.table.add(given)
        if isinstance(given, MaskTable) != asks:
            raise ValueError(
                f"{type(task).__name__}.token_masks is a {type(given).__name__} and mask_numbers is "
                f"{'' if asks else 'not '}defined; give a MaskTable and define mask_numbers(prompts, responses), or give one "
                "mask, bool (V,), and do not"
            )
        if self.table.vocab_size != tokenizer.vocab_size:
            raise ValueError(
                f"{type(task).__name__}.token_masks is made for {self.table.vocab_size} tokens but the tokenizer has "
                f"{tokenizer.vocab_size}; make it with len(tokenizer)"
            )

    @classmethod
    def of(cls, task: Any, tokenizer: TextTokenizer, default: Any) -> ActionMasks | None:
        """Give the masks of a task, None where it has none; ``default`` is the ``mask_numbers`` that a task inherits."""
        if getattr(task, "token_masks", None) is None:
            if "mask_numbers" in vars(task):
                raise ValueError("mask_fn is given but token_masks is not; give the MaskTable whose numbers it returns")
            return None
        method = getattr(task, "mask_numbers", default)
        return cls(task, tokenizer, getattr(method, "__func__", method) is not default)

    @property
    def need_texts(self) -> bool:
        """Whether the masks depend on the texts; otherwise there is one, and texts need not be read."""
        return self._asks

    def numbers(
        self,
        prompts: Sequence[Prompt | None],
        responses: Sequence[npt.NDArray[np.int64]],
        episode_ids: Any,
    ) -> npt.NDArray[np.int64]:
        """Ask which mask holds after each of n texts, int64 (n,).

        Args:
            prompts: with ids.
            responses: int64 (t,) each, replies included; not read unless ``need_texts``.
            episode_ids: their numbers (n,), for messages.

        Raises:
            ValueError: the task gave what is no number of a mask, or a mask that allows nothing; names episode and task.
            Exception: what the task itself raised, with a note that names the episodes.
        """
        if not self._asks:
            numbers = np.full(len(prompts), self._only, dtype=np.int64)
        else:
            try:
                numbers = np.asarray(self._task.mask_numbers(prompts, responses))
            except Exception as error:
                error.add_note(f"while asking which tokens may follow in episodes {', '.join(map(str, episode_ids[:8]))}")
                raise
            self._check(numbers, episode_ids)
        for i in np.flatnonzero(np.isin(numbers, self.table.empty)).tolist() if self.table.empty else ():
            text = self._tokenizer.decode(responses[i]) if self._asks else ""
            raise ValueError(
                f"{type(self._task).__name__} allows no token after {text!r} in episode {episode_ids[i]}: mask "
                f"{numbers[i]} is False everywhere; allow at least one, or end the text there (task.ended, task.stop)"
            )
        return numbers.astype(np.int64, copy=False)

    def nearest(self, number: int, action: int) -> int:
        """Give ``action`` where the mask ``number`` allows it, else the next token that it allows, in a circle."""
        allowed = np.flatnonzero(self.table.rows[number])
        return int(allowed[np.searchsorted(allowed, action) % len(allowed)])

    def forbidden(self, action: Any, number: Any, where: str) -> ValueError:
        """Name an action that the mask ``number`` leaves out, and what may be done."""
        allowed = np.flatnonzero(self.table.rows[int(number)])
        named = ", ".join(f"{i} {self._tokenizer.piece(i)!r}" for i in allowed[:_NAMED].tolist())
        more = f" and {len(allowed) - _NAMED} more" if len(allowed) > _NAMED else ""
        return ValueError(
            f"action {int(action)} {self._tokenizer.piece(int(action))!r} of {where} is not allowed by "
            f"{type(self._task).__name__}; allowed are {named}{more}; choose among action_masks(), which an agent must read to "
            "play a task with action masks"
        )

    def _check(self, numbers: npt.NDArray[Any], episode_ids: Any) -> None:
        name = type(self._task).__name__
        if numbers.shape != (len(episode_ids),) or numbers.dtype.kind not in "iu":
            raise ValueError(
                f"{name}.mask_numbers gave shape {numbers.shape} and dtype {numbers.dtype} for {len(episode_ids)} texts; give "
                "one integer per text, as MaskTable.add gave them"
            )
        for i in np.flatnonzero((numbers < 0) | (numbers >= len(self.table)))[:1]:
            raise ValueError(
                f"{name}.mask_numbers gave {numbers[i]} in episode {episode_ids[i]}; allowed are 0..{len(self.table) - 1}, the "
                "numbers that MaskTable.add gave"
            )


def hand_on_masks(task: Any, wrapper: Any) -> None:
    """Give a task that wraps another one its action masks, where it has any."""
    if getattr(task, "token_masks", None) is None:
        return
    wrapper.token_masks = task.token_masks
    if hasattr(task, "mask_numbers"):
        wrapper.mask_numbers = task.mask_numbers
