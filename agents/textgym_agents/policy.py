"""A language model as a policy: sample one token per slot from a KV cache, evaluate whole texts.

Left out on purpose: generation. The vector environment owns the texts; ``act`` reads them from the observation, so what
the model sees is what the environment holds, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textgym_agents.model import ActorCritic


@dataclass(frozen=True, eq=False)
class Step:
    """What a policy does in one step, n slots."""

    tokens: Tensor
    """int64 (n,), the actions."""
    logprobs: Tensor
    """float32 (n,), log-probability of each under the distribution that it was sampled from."""
    values: Tensor
    """float32 (n,), V of the state before the token; zeros from a policy without a critic."""


class CausalLMPolicy:
    """A causal language model with one KV-cache row per slot.

    Args:
        model: the language model and its value head.
        num_slots: N, rows of the environment.
        seed: of the policy's own generator.
        temperature: of sampling; log-probs are those of the tempered distribution.
    """

    def __init__(self, model: ActorCritic, num_slots: int, *, seed: int = 0, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.model = model
        self.num_slots = num_slots
        self.temperature = temperature
        self.device = model.lm.device
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._cache = model.slot_cache(num_slots)
        self._row_of = np.full(num_slots, -1, dtype=np.int64)  # cache row of each slot, -1: none
        self._slot_of = np.zeros(0, dtype=np.int64)  # slot of each cache row in use, -1: free
        self._cached = np.zeros(num_slots, dtype=np.int64)  # tokens of each slot that are in the cache

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget the texts of ``slots``; their rows are free for others."""
        slots = np.asarray(slots, dtype=np.int64)
        slots = slots[slots < self.num_slots]  # `act` names a slot that there is not
        rows = self._row_of[slots]
        self._slot_of[rows[rows >= 0]] = -1
        self._row_of[slots] = -1
        self._cached[slots] = 0

    @torch.no_grad()
    def act(self, obs: Any, slots: Sequence[int] | np.ndarray) -> Step:
        """Sample the next token of each of ``slots``.

        Args:
            obs: int64 (n, context_length), right-padded with -1; row i is the text of ``slots[i]``.
            slots: which slots, n of them.

        Raises:
            ValueError: a text has not grown since its slot last acted, and ``reset_slots`` was not called.
        """
        slots = np.asarray(slots, dtype=np.int64)
        if len(slots) and slots.max() >= self.num_slots:
            raise ValueError(
                f"slot {slots.max()} was asked for but the policy has {self.num_slots} slots; make it with the environment's "
                "num_envs"
            )
        tokens = torch.as_tensor(obs, device=self.device)
        lengths = (tokens >= 0).sum(1).cpu().numpy()
        for i in np.flatnonzero(lengths <= self._cached[slots])[:1]:
            raise ValueError(
                f"slot {slots[i]} has {lengths[i]} tokens but {self._cached[slots[i]]} were seen before; call reset_slots "
                "when an episode ends"
            )
        self._take_rows(slots)
        hidden = torch.empty(len(slots), self.model.hidden_size, dtype=self.model.lm.dtype, device=self.device)
        # 1) texts that are several tokens ahead of the cache (new prompts, replies): one pass for all of them
        several = lengths - self._cached[slots] > 1
        if len(slots) <= len(self._slot_of) // 2:
            several[:] = True  # few of many rows: reading just theirs costs less than one pass over all
        for which, run in ((several, self._catch_up), (~several, self._decode)):
            # 2) all others: one token each, over the rows as they lie in the cache
            if which.any():
                part = torch.from_numpy(np.flatnonzero(which)).to(self.device)
                hidden[part] = run(tokens[part], slots[which], lengths[which])
        self._cached[slots] = lengths
        return self._sample(hidden)

    def evaluate(self, ids: Tensor, prompt_lengths: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Give logprobs, values, entropy (B, T) of whole texts; see ``ActorCritic.forward``."""
        return self.model(ids, prompt_lengths, mask, self.temperature)

    def _take_rows(self, slots: np.ndarray) -> None:
        """Give every slot a cache row; first close the gaps where more than half of the rows in use are free."""
        missing = slots[self._row_of[slots] < 0]
        if len(missing) == 0 and (self._slot_of >= 0).sum() > len(self._slot_of) // 2:
            return
        used = np.flatnonzero(self._slot_of >= 0)
        if len(used) + len(missing) <= len(self._slot_of) // 2:
            self._cache.move_rows(torch.from_numpy(used).to(self.device))
            self._slot_of = self._slot_of[used]
            self._row_of[self._slot_of] = np.arange(len(used))
        grow = len(missing) - int((self._slot_of < 0).sum())
        self._slot_of = np.append(self._slot_of, np.full(max(0, grow), -1, dtype=np.int64))
        rows = np.flatnonzero(self._slot_of < 0)[: len(missing)]
        self._slot_of[rows] = missing
        self._row_of[missing] = rows

    def _catch_up(self, tokens: Tensor, slots: np.ndarray, lengths: np.ndarray) -> Tensor:
        """Run the tokens that the cache lacks, several per row. Returns the last token's hidden state (G, hidden)."""
        first = torch.from_numpy(self._cached[slots]).to(self.device)
        count = torch.from_numpy(lengths - self._cached[slots]).to(self.device)
        width, queries = int(lengths.max()), int((lengths - self._cached[slots]).max())
        columns = first[:, None] + torch.arange(queries, device=self.device)
        # Rows with fewer new tokens repeat their last one in the spare column, which nobody reads.
        spare = columns >= (first + count)[:, None]
        ids = tokens.gather(1, columns.clamp(max=tokens.shape[1] - 1)).masked_fill(spare, 0)
        positions = columns.clamp(max=self.model.context_length - 1)
        mask = self._cache.aim(
            torch.from_numpy(self._row_of[slots]).to(self.device),
            columns.masked_fill(spare, self.model.context_length),
            width,
            self.model.lm.dtype,
        )
        hidden = self.model.hidden(ids, positions, mask, self._cache)
        return hidden[torch.arange(len(slots), device=self.device), count - 1]

    def _decode(self, tokens: Tensor, slots: np.ndarray, lengths: np.ndarray) -> Tensor:
        """Run one token for each of ``slots`` over all rows in use. Returns hidden states (G, hidden)."""
        in_use = len(self._slot_of)
        rows = torch.from_numpy(self._row_of[slots]).to(self.device)
        columns = torch.full((in_use,), self.model.context_length, dtype=torch.int64)  # rows that sit out: spare column
        columns[rows.cpu()] = torch.from_numpy(lengths - 1)
        columns = columns.to(self.device)
        ids = torch.zeros(in_use, dtype=torch.int64, device=self.device)
        at = torch.from_numpy(lengths - 1).to(self.device)
        ids[rows] = tokens.gather(1, at[:, None]).squeeze(1)
        mask = self._cache.aim(None, columns[:, None], int(lengths.max()), self.model.lm.dtype)
        positions = columns.clamp(max=self.model.context_length - 1)[:, None]
        return self.model.hidden(ids[:, None], positions, mask, self._cache)[rows, 0]

    def _sample(self, hidden: Tensor) -> Step:
        """Sample by the inverse of the distribution function: one uniform number per row."""
        logits = self.model.logits(hidden) / self.temperature
        logprobs = logits.log_softmax(-1)
        cdf = logprobs.exp().cumsum(-1)
        # A little under the total, so that rounding never passes the last token with probability above 0.
        draw = torch.rand(len(hidden), 1, generator=self._generator, device=self.device) * (1 - 2**-22) * cdf[:, -1:]
        tokens = torch.searchsorted(cdf, draw, right=True)
        if (tokens >= self.model.vocab_size).any():
            raise FloatingPointError("the model's logits are not finite, so no token can be sampled; its weights may be NaN")
        return Step(tokens.squeeze(1), logprobs.gather(1, tokens).squeeze(1), self.model.values(hidden))
