"""A language model as a policy: sample one token per slot from a KV cache, evaluate whole texts.

Left out on purpose: generation. The vector environment owns the texts; ``act`` reads them from the observation, so what
the model sees is what the environment holds, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgym_agents.decode import Decoder, Sampled, groups_by_length
from textgym_agents.head import Allowed
from textgym_agents.model import ActorCritic
from textgym_agents.prefix import LEAST_SAVED, Sharing, share
from textgym_agents.rows import SlotRows
from textgym_agents.sampling import Draws, Sampling


@dataclass(frozen=True, eq=False)
class Step:
    """What a policy does in one step, n slots."""

    tokens: Tensor
    """int64 (n,), the actions."""
    logprobs: Tensor
    """float32 (n,), log-probability of each under the distribution that it was sampled from."""
    values: Tensor
    """float32 (n,), V of the state before the token; zeros from a policy without a critic, or whose critic reads whole
    texts afterwards (a value model of its own)."""


class CausalLMPolicy:
    """A causal language model with one KV-cache row per slot.

    Args:
        model: the language model and its value head.
        num_slots: N, rows of the environment.
        seed: of the policy's own generator.
        temperature: of sampling; log-probs are those of the distribution that was sampled from.
        top_k: sample from the k most probable tokens only; None: from all.
        top_p: sample from the fewest most probable tokens that hold this much probability.
    """

    def __init__(
        self,
        model: ActorCritic,
        num_slots: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> None:
        self.sampling = Sampling(temperature, top_k, top_p)
        self.model = model
        self.num_slots = num_slots
        self.device = model.lm.device
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._decoder = Decoder(model, num_slots, self.sampling)
        self._rows = SlotRows(num_slots)

    @property
    def temperature(self) -> float:
        """Of sampling and of evaluation."""
        return self.sampling.temperature

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget what the cache holds of ``slots``: their episodes ended, or the weights have changed since."""
        slots = _as_slots(slots)
        self._rows.free(slots[slots < self.num_slots])  # `act` names a slot that there is not

    @torch.no_grad()
    def act(
        self,
        obs: Any,
        slots: Sequence[int] | np.ndarray,
        lengths: npt.NDArray[np.int64] | None = None,
        allowed: Tensor | None = None,
    ) -> Step:
        """Sample the next token of each of ``slots``.

        Args:
            obs: int64 (n, context_length), right-padded with -1; row i is the text of ``slots[i]``.
            slots: which slots, n of them.
            lengths: int64 (n,), tokens of each text, for who knows them: reading them off ``obs`` waits for the device.
            allowed: bool (n, V), the tokens that the task allows, at least one per text; None: all.

        Raises:
            ValueError: a text has not grown since its slot last acted, and ``reset_slots`` was not called; it is longer than
                the model's context; or there are no such slots.
            FloatingPointError: the model's logits are not finite.
        """
        slots = _as_slots(slots)
        if len(slots) == 0 or (np.diff(np.sort(slots)) == 0).any():
            raise ValueError(f"slots are {slots.tolist()}; name at least one, and each once")
        if slots.max() >= self.num_slots:
            raise ValueError(
                f"slot {slots.max()} was asked for but the policy has {self.num_slots} slots; make it with the environment's "
                "num_envs"
            )
        tokens = torch.as_tensor(obs, device=self.device)
        lengths = (tokens >= 0).sum(1).cpu().numpy() if lengths is None else lengths
        new = lengths - self._rows.cached[slots]
        for i in np.flatnonzero(new <= 0)[:1]:
            raise ValueError(
                f"slot {slots[i]} has {lengths[i]} tokens but {self._rows.cached[slots[i]]} were seen before; call reset_slots "
                "when an episode ends"
            )
        if (longest := int(lengths.max())) > self.model.context_length:
            raise ValueError(
                f"slot {slots[lengths.argmax()]} has {longest} tokens but the model was made for {self.model.context_length}; "
                "make ActorCritic with the environment's context_length"
            )
        self._take_rows(slots, lengths)
        draws = Draws(torch.rand(len(slots), generator=self._generator, device=self.device), None)
        if allowed is not None:
            draws = draws._replace(allowed=allowed.to(self.device))
        several = new > 1
        if len(slots) <= len(self._rows) // 2:
            several[:] = True  # few of many rows: reading just theirs costs less than one pass over all
        fresh = np.flatnonzero(several & (self._rows.cached[slots] == 0))
        grown, rest = np.flatnonzero(several & (self._rows.cached[slots] > 0)), np.flatnonzero(~several)
        sharing = self._share(tokens, fresh, slots, lengths)
        parts = []
        if self._decoder.mixes and sharing is None and len(fresh) and len(rest):
            # 1) new prompts, in one pass with those that need one token each
            parts.append(self._mix(tokens, fresh, rest, slots, lengths, draws))
        else:
            if len(fresh):
                parts.append(self._enter(tokens, fresh, slots, lengths, draws, sharing))
            if len(rest):
                # over the rows as they lie in the cache
                parts.append(self._decode(tokens, rest, slots, lengths, draws))
        # 2) texts that are several tokens ahead of the cache: replies
        if len(grown):
            parts.append(self._catch_up(tokens, grown, slots, lengths, draws))
        self._rows.cached[slots] = lengths
        step = self._in_order(parts)
        # On CUDA the environment looks, with the step's one transfer; it refuses the token V.
        if self.device.type == "cpu" and int(step.tokens.max()) >= self.model.vocab_size:
            self._decoder.cache.clear()  # a masked NaN is a NaN still
            raise FloatingPointError("the model's logits are not finite, so no token can be sampled; its weights may be NaN")
        return step

    def evaluate(self, ids: Tensor, prompt_lengths: Tensor, mask: Tensor, allowed: Allowed | None = None) -> tuple[Tensor, ...]:
        """Give logprobs, values, entropy (B, T) of whole texts under the tempered model; see ``ActorCritic.forward``."""
        return self.model(ids, prompt_lengths, mask, self.temperature, allowed=allowed)

    def _take_rows(self, slots: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        source, target = self._rows.take(slots, lengths)
        if len(source):
            try:
                self._copy(source, target, int(self._rows.cached[self._rows.slot_of[target]].max()))
            except Exception:
                self._rows = SlotRows(self.num_slots)  # rows were given that hold nothing: everything is run anew
                raise

    def _plan(
        self, at: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor, npt.NDArray[np.int64]]:
        """Plan a pass of one token for each of the texts ``at`` over all rows in use.

        Returns:
            For each row: which text it reads, which of its tokens, the column that this goes to, and the tokens it then has.
            Rows that sit out read the first text's first token.
        """
        rows, last = self._rows.row_of[slots[at]], lengths[at] - 1
        plan = np.zeros((3, self._decoder.rows_for(len(self._rows))), dtype=np.int64)
        plan[2] = self._decoder.spare
        plan[:, rows] = at, last, last
        held = np.zeros(plan.shape[1], dtype=np.int64)
        held[rows] = lengths[at]
        text, token, column = self._upload(plan)
        return text, token, column, held

    def _decode(
        self,
        tokens: Tensor,
        at: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        draws: Draws,
    ) -> tuple[npt.NDArray[np.int64], Sampled]:
        """Run the last token of the texts ``at``, and sample."""
        text, token, columns, held = self._plan(at, slots, lengths)
        sampled = self._decoder.one_each(tokens[text, token], columns, draws.at(text), held)
        where = self._upload(self._rows.row_of[slots[at]])
        return at, Sampled(*(figure[where] for figure in sampled))

    def _mix(
        self,
        tokens: Tensor,
        fresh: npt.NDArray[np.int64],
        rest: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        draws: Draws,
    ) -> tuple[npt.NDArray[np.int64], Sampled]:
        """Run the new texts ``fresh`` and the last token of the texts ``rest`` in one pass, and sample."""
        text, token, columns, held = self._plan(rest, slots, lengths)
        counts, new = lengths[fresh], tokens[self._upload(fresh)]
        rows = self._upload(np.repeat(self._rows.row_of[slots[fresh]], counts))
        ids = tokens[text, token]
        one, ends = self._decoder.mixed(ids, columns, held, new[new >= 0], rows, counts.tolist())
        at = np.concatenate([rest, fresh])
        states = torch.cat([one[self._upload(self._rows.row_of[slots[rest]])], ends])
        return at, self._decoder.sample(states, draws.at(self._upload(at)))

    def _catch_up(
        self,
        tokens: Tensor,
        at: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        draws: Draws,
    ) -> tuple[npt.NDArray[np.int64], Sampled]:
        """Run the tokens that the cache lacks of the texts ``at``, and sample."""
        rows, cached = self._rows.row_of[slots[at]], self._rows.cached[slots[at]]
        states = self._run(tokens[self._upload(at)], rows, cached, lengths[at])
        return at, self._decoder.sample(states, draws.at(self._upload(at)))

    def _share(
        self, tokens: Tensor, fresh: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> Sharing | None:
        """Find what the new texts ``fresh`` share with each other and with texts that the cache holds."""
        if lengths[fresh].sum() < LEAST_SAVED:
            return None
        texts, cached = tokens.cpu().numpy(), self._rows.cached[slots]  # once per refill, not per token
        held = np.flatnonzero(cached)
        return share(texts[fresh], lengths[fresh], texts[held], cached[held])

    def _enter(
        self,
        tokens: Tensor,
        at: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        draws: Draws,
        sharing: Sharing | None,
    ) -> tuple[npt.NDArray[np.int64], Sampled]:
        """Run the new texts ``at``, and sample; what they share is run once and copied."""
        if sharing is None:
            return self._catch_up(tokens, at, slots, lengths, draws)
        rows, leaders, start = self._rows.row_of[slots], at[sharing.leaders], sharing.copied
        if start.any():
            held = np.flatnonzero(self._rows.cached[slots])
            self._copy(rows[held[sharing.donors]], rows[leaders], int(start.max()))
        texts = tokens[self._upload(leaders)]
        if sharing.common:
            self._run(texts[:1], rows[leaders[:1]], start[:1], np.full(1, sharing.common))
            start = np.full_like(start, sharing.common)
            self._copy(rows[leaders[:1]].repeat(len(leaders) - 1), rows[leaders[1:]], sharing.common)
        states = self._run(texts, rows[leaders], start, lengths[leaders])
        twins = np.setdiff1d(np.arange(len(at)), sharing.leaders)
        self._copy(rows[leaders[sharing.leader_of[twins]]], rows[at[twins]], int(lengths[at].max()))
        return at, self._decoder.sample(states[self._upload(sharing.leader_of)], draws.at(self._upload(at)))

    def _run(
        self, texts: Tensor, rows: npt.NDArray[np.int64], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
    ) -> Tensor:
        """Run tokens ``start`` to ``stop`` of ``texts`` (n, L) in ``rows``. Returns the states of the last ones (n, hidden)."""
        groups = groups_by_length(stop - start)
        states = []
        for group in groups:
            which, row, first, count = self._upload(np.stack([group, rows[group], start[group], (stop - start)[group]]))
            columns = first[:, None] + torch.arange(int((stop - start)[group].max()), device=self.device)
            ids = texts[which[:, None], columns.clamp(max=texts.shape[1] - 1)]
            states.append(self._decoder.several(row, ids, first, count, int(stop[group].max())))
        return torch.cat(states)[self._upload(np.argsort(np.concatenate(groups)))]

    def _copy(self, source: npt.NDArray[np.int64], target: npt.NDArray[np.int64], width: int) -> None:
        if len(source):
            self._decoder.cache.copy_rows(self._upload(source), self._upload(target), width)

    def _in_order(self, parts: Sequence[tuple[npt.NDArray[np.int64], Sampled]]) -> Step:
        """Lay what was sampled for the texts ``at`` of each part out in the order of the texts."""
        order = np.concatenate([at for at, _ in parts])
        sampled = parts[0][1] if len(parts) == 1 else Sampled(*map(torch.cat, zip(*(part for _, part in parts), strict=True)))
        if (order[1:] > order[:-1]).all():
            return Step(*sampled)
        where = self._upload(np.argsort(order))
        return Step(*(figure[where] for figure in sampled))

    def _upload(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)


def _as_slots(slots: Sequence[int] | np.ndarray) -> npt.NDArray[np.int64]:
    array = np.asarray(slots)
    if array.dtype == np.bool_ or (len(array) and array.min() < 0):
        raise ValueError(f"slots are {array.tolist()}; give their numbers, from 0")
    return array.astype(np.int64, copy=False)
