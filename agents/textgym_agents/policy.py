"""A language model as a policy: sample one token per slot from a KV cache, evaluate whole texts.

Left out on purpose: generation. The vector environment owns the texts; ``act`` reads them from the observation, so what
the model sees is what the environment holds, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgym_agents.ahead import MOST, Ahead, Running
from textgym_agents.decode import Decoder, Sampled
from textgym_agents.head import Allowed
from textgym_agents.model import ActorCritic
from textgym_agents.plan import Plan
from textgym_agents.prefill import groups_by_length
from textgym_agents.prefix import LEAST_SAVED, Sharing, share
from textgym_agents.rows import SlotRows
from textgym_agents.sampling import Sampling


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
    following: Sequence[Following] = ()
    """Where the policy was told ``ahead``: the steps after this one, which the driver takes without asking."""


class Following(NamedTuple):
    """A step that was not asked for."""

    slots: npt.NDArray[np.int64]
    """int64 (m,), those of the step before it whose texts go on, in the same order."""
    tokens: Tensor
    """int64 (m,), as in ``Step``."""
    logprobs: Tensor
    """float32 (m,)."""
    values: Tensor
    """float32 (m,)."""


class _Texts(NamedTuple):
    """The n texts that a step asks about."""

    tokens: Tensor
    """int64 (n, context_length), right-padded with -1."""
    lengths: npt.NDArray[np.int64]
    """int64 (n,)."""
    rows: npt.NDArray[np.int64]
    """int64 (n,), the cache's row of each."""
    cached: npt.NDArray[np.int64]
    """int64 (n,), tokens of each that its row holds."""
    uniforms: Tensor
    """float32 (n,), the random number that each token is drawn by."""
    allowed: Tensor | None
    """bool (n, V), the tokens that the task allows; None: all."""


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
        self._on_host = self.device.type == "cpu"
        self.generator = torch.Generator(self.device).manual_seed(seed)
        """What tokens are drawn by; a state that shall be resumed exactly holds it (``save_learning``)."""
        self._decoder = Decoder(model, num_slots, self.sampling)
        self._rows = SlotRows(num_slots)

    @property
    def temperature(self) -> float:
        """Of sampling and of evaluation."""
        return self.sampling.temperature

    def reseed(self, seed: int) -> None:
        """Let the policy's own generator begin anew from ``seed``."""
        self.generator.manual_seed(seed)

    def record_soon(self) -> None:
        """Record the model's pass at once, not only after 500 passes, where a run is known to be long; see ``recording``."""
        self._decoder.record_soon()

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget what the cache holds of ``slots``: their episodes ended, or the weights have changed since."""
        slots, _ = _as_slots(slots)
        self._rows.free(slots[slots < self.num_slots])  # `act` names a slot that there is not

    @torch.no_grad()
    def act(
        self,
        obs: Any,
        slots: Sequence[int] | np.ndarray,
        lengths: npt.NDArray[np.int64] | None = None,
        allowed: Tensor | None = None,
        ahead: Ahead | None = None,
    ) -> Step:
        """Sample the next token of each of ``slots``.

        Args:
            obs: int64 (n, context_length), right-padded with -1; row i is the text of ``slots[i]``.
            slots: which slots, n of them.
            lengths: int64 (n,), tokens of each text, for who knows them: reading them off ``obs`` waits for the device.
            allowed: bool (n, V), the tokens that the task allows, at least one per text; None: all.
            ahead: what is known of the steps to come; where it can the policy then samples some of them too, by the random
                numbers and passes that it would have used when asked for them: ``Step.following``.

        Raises:
            ValueError: a text has not grown since its slot last acted, and ``reset_slots`` was not called; it is longer than
                the model's context; or there are no such slots.
            FloatingPointError: the model's logits are not finite.
        """
        slots, named = _as_slots(slots)
        if not named or len(set(named)) < len(named):
            raise ValueError(f"slots are {named}; name at least one, and each once")
        if max(named) >= self.num_slots:
            raise ValueError(
                f"slot {max(named)} was asked for but the policy has {self.num_slots} slots; make it with the environment's "
                "num_envs"
            )
        tokens = torch.as_tensor(obs, device=self.device)
        lengths = (tokens >= 0).sum(1).cpu().numpy() if lengths is None else lengths
        cached = self._rows.cached[slots]
        if not any(self._rows.cached.tolist()):
            self._decoder.begin()
        new = (lengths - cached).tolist()  # Python's own functions are quicker than numpy's on so few numbers
        if min(new) <= 0:
            i = new.index(min(new))
            raise ValueError(
                f"slot {named[i]} has {lengths[i]} tokens but {cached[i]} were seen before; call reset_slots when an episode "
                "ends"
            )
        if (longest := max(lengths.tolist())) > self.model.context_length:
            raise ValueError(
                f"slot {named[lengths.argmax()]} has {longest} tokens but the model was made for {self.model.context_length}; "
                "make ActorCritic with the environment's context_length"
            )
        rows = self._rows.settled(slots)
        if rows is None:
            rows = self._take_rows(slots, lengths)
        uniforms = torch.rand(len(named), generator=self.generator, device=self.device)
        texts = _Texts(tokens, lengths, rows, cached, uniforms, None if allowed is None else allowed.to(self.device))
        few = len(named) <= len(self._rows) // 2  # of many rows: reading just theirs costs less than one pass over all
        if few or max(new) > 1:
            sampled = self._pass_by_pass(texts, [few or count > 1 for count in new])
        else:
            sampled = self._decode(texts)
        self._rows.cached[slots] = lengths
        if self._on_host:  # on CUDA the environment looks, with the step's one transfer; it refuses the token V
            written = self._written(slots, sampled)
            if ahead is not None and allowed is None:
                return Step(*sampled, self._run_ahead(slots, lengths, written, ahead))
        return Step(*sampled)

    def _written(self, slots: npt.NDArray[np.int64], sampled: Sampled) -> list[int]:
        """Give what the next token of each of ``slots`` shall be, and raise where there is none."""
        tokens = sampled.tokens.tolist()
        if max(tokens) >= self.model.vocab_size:
            self._decoder.cache.clear()  # a masked NaN is a NaN still
            self._rows = SlotRows(self.num_slots)  # and nothing is cached any more
            raise FloatingPointError("the model's logits are not finite, so no token can be sampled; its weights may be NaN")
        return tokens

    def _run_ahead(
        self,
        slots: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        written: list[int],
        ahead: Ahead,
    ) -> list[Following]:
        """Sample the steps after the one that has ``written``, while it is known which: the passes that ``act`` would run."""
        following: list[Following] = []
        running, plan = Running(ahead), None

        def meanwhile() -> Tensor:
            """Done while a half of the pass still runs: what does not hang on the tokens that it gives."""
            assert plan is not None
            plan.go_on()
            return torch.rand(len(slots), generator=self.generator)

        try:
            for taken in range(1, min(MOST, self.model.context_length - int(lengths.max())) + 1):
                stay = running.after(written)
                if stay is None:
                    break
                if running.gone:
                    gone, slots, lengths = slots[running.gone], slots[stay], lengths[stay]
                    self._rows.free(gone)  # as the driver will
                    written = [written[i] for i in stay]
                    if plan is not None:
                        plan.leave(running.gone, stay)
                if plan is None or running.gone:
                    rows = self._rows.settled(slots)
                    if rows is None:
                        self._rows.cached[slots] = lengths + (taken - 1)
                        rows, plan = self._take_rows(slots, lengths + taken), None
                    if len(slots) <= len(self._rows) // 2:  # few are run by themselves
                        break
                    if plan is None:
                        plan = self._plan(rows)
                        plan.put(0, lengths + (taken - 1), lengths + taken)
                plan.say(written)
                sampled = self._decoder.one_each(*plan.tensors, plan.lengths, plan.at, meanwhile, follows=bool(following))
                written = self._written(slots, sampled)
                following.append(Following(slots, *sampled))
        except BaseException:
            self._rows.free(slots)  # they do not hold what was just said
            raise
        self._rows.cached[slots] = lengths + len(following)
        return following

    def _pass_by_pass(self, texts: _Texts, several: Sequence[bool]) -> Sampled:
        """Sample the next token of each text, where some of them need ``several`` tokens run."""
        cached = texts.cached.tolist()  # Python's lists: after a pass each of numpy's functions is slow at first
        fresh = np.array([i for i, many in enumerate(several) if many and not cached[i]], dtype=np.int64)
        grown = np.array([i for i, many in enumerate(several) if many and cached[i]], dtype=np.int64)
        rest = np.array([i for i, many in enumerate(several) if not many], dtype=np.int64)
        sharing = self._share(texts, fresh)
        parts = []
        if self._decoder.mixes and sharing is None and len(fresh) and len(rest):
            # 1) new prompts, in one pass with those that need one token each
            both = np.arange(len(cached)) if len(grown) == 0 else np.sort(np.concatenate([fresh, rest]))
            parts.append((both, self._mix(texts, fresh, rest, both)))
        else:
            if len(fresh):
                parts.append((fresh, self._enter(texts, fresh, sharing)))
            if len(rest):
                # over the rows as they lie in the cache
                parts.append((rest, self._decode(texts, rest)))
        # 2) texts that are several tokens ahead of the cache: replies
        if len(grown):
            parts.append((grown, self._catch_up(texts, grown)))
        if len(parts) == 1:
            return parts[0][1]
        back = self._upload(np.argsort(np.concatenate([at for at, _ in parts])))
        return Sampled(*(torch.cat(figures)[back] for figures in zip(*(part for _, part in parts), strict=True)))

    def evaluate(self, ids: Tensor, prompt_lengths: Tensor, mask: Tensor, allowed: Allowed | None = None) -> tuple[Tensor, ...]:
        """Give logprobs, values, entropy (B, T) of whole texts under the tempered model; see ``ActorCritic.forward``."""
        return self.model(ids, prompt_lengths, mask, self.temperature, allowed=allowed)

    def _take_rows(self, slots: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        source, target = self._rows.take(slots, lengths)
        if len(source):
            try:
                self._copy(source, target, max(self._rows.cached[self._rows.slot_of[target]].tolist()))
            except Exception:
                self._rows = SlotRows(self.num_slots)  # rows were given that hold nothing: everything is run anew
                raise
        return self._rows.row_of[slots]

    def _plan(self, rows: npt.NDArray[np.int64]) -> Plan:
        return Plan(rows, self._decoder.rows_for(len(self._rows)), self._decoder.spare)

    def _plan_last(
        self, texts: _Texts, at: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
        """Plan a pass over the last token of each of the texts ``at``, which have these ``rows``.

        Returns:
            For each row: its token, the column that this goes to, and the tokens it then has.
        """
        plan, last = self._plan(rows), texts.lengths[at] - 1
        if self._on_host:  # numpy's indexing costs a third of torch's on so few numbers
            plan.put(texts.tokens.numpy()[at, last], last, last + 1)
            return *plan.tensors, plan.lengths
        plan.put(0, last, last + 1)
        text, token, row = self._upload(np.stack([at, last, rows]))
        ids, columns = map(self._upload, (plan.ids, plan.columns))
        return ids.index_put((row,), texts.tokens[text, token]), columns, plan.lengths

    def _decode(self, texts: _Texts, at: npt.NDArray[np.int64] | None = None) -> Sampled:
        """Run the last token of the texts ``at`` (None: of all), and sample."""
        if at is None:
            rows, draws = texts.rows, (texts.uniforms, texts.allowed)
            at = np.arange(len(rows))
        else:
            rows, draws = texts.rows[at], self._draws(texts, at)
        ids, columns, held = self._plan_last(texts, at, rows)
        return self._decoder.one_each(ids, columns, held, self._upload(rows), *draws)

    def _mix(
        self, texts: _Texts, fresh: npt.NDArray[np.int64], rest: npt.NDArray[np.int64], both: npt.NDArray[np.int64]
    ) -> Sampled:
        """Run the new texts ``fresh`` and the last token of the texts ``rest`` in one pass; sample in the order of ``both``."""
        ids, columns, held = self._plan_last(texts, rest, texts.rows[rest])
        counts, new = texts.lengths[fresh], texts.tokens.numpy()[fresh]  # only passes on the host are mixed
        rows = torch.from_numpy(np.repeat(texts.rows[fresh], counts))
        hidden = self._decoder.mixed(ids, columns, held, torch.from_numpy(new[new >= 0]), rows, counts.tolist())
        place = texts.rows.copy()
        place[fresh] = list(accumulate(counts.tolist(), initial=len(ids) - 1))[1:]
        place = place if len(both) == len(place) else place[both]
        return self._decoder.sample(hidden.index_select(0, self._upload(place)), *self._draws(texts, both))

    def _catch_up(self, texts: _Texts, at: npt.NDArray[np.int64]) -> Sampled:
        """Run the tokens that the cache lacks of the texts ``at``, and sample."""
        states = self._run(texts.tokens[self._upload(at)], texts.rows[at], texts.cached[at], texts.lengths[at])
        return self._decoder.sample(states, *self._draws(texts, at))

    def _share(self, texts: _Texts, fresh: npt.NDArray[np.int64]) -> Sharing | None:
        """Find what the new texts ``fresh`` share with each other and with texts that the cache holds."""
        if sum(texts.lengths[fresh].tolist()) < LEAST_SAVED:
            return None
        tokens, held = texts.tokens.cpu().numpy(), np.flatnonzero(texts.cached)  # once per refill, not per token
        return share(tokens[fresh], texts.lengths[fresh], tokens[held], texts.cached[held])

    def _enter(self, texts: _Texts, at: npt.NDArray[np.int64], sharing: Sharing | None) -> Sampled:
        """Run the new texts ``at``, and sample; what they share is run once and copied."""
        if sharing is None:
            return self._catch_up(texts, at)
        rows, leaders, start = texts.rows, at[sharing.leaders], sharing.copied
        if start.any():
            held = np.flatnonzero(texts.cached)
            self._copy(rows[held[sharing.donors]], rows[leaders], int(start.max()))
        tokens = texts.tokens[self._upload(leaders)]
        if sharing.common:
            self._run(tokens[:1], rows[leaders[:1]], start[:1], np.full(1, sharing.common))
            start = np.full_like(start, sharing.common)
            self._copy(rows[leaders[:1]].repeat(len(leaders) - 1), rows[leaders[1:]], sharing.common)
        states = self._run(tokens, rows[leaders], start, texts.lengths[leaders])
        twins = np.setdiff1d(np.arange(len(at)), sharing.leaders)
        self._copy(rows[leaders[sharing.leader_of[twins]]], rows[at[twins]], int(texts.lengths[at].max()))
        return self._decoder.sample(states[self._upload(sharing.leader_of)], *self._draws(texts, at))

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

    def _draws(self, texts: _Texts, at: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Give the random numbers of the texts ``at``, and what they may be."""
        if len(at) == len(texts.lengths):
            return texts.uniforms, texts.allowed
        where = self._upload(at)
        return texts.uniforms[where], None if texts.allowed is None else texts.allowed[where]

    def _upload(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)


def _as_slots(slots: Sequence[int] | np.ndarray) -> tuple[npt.NDArray[np.int64], list[int]]:
    array = np.asarray(slots)
    named = array.tolist()
    if array.dtype == np.bool_ or min(named, default=0) < 0:
        raise ValueError(f"slots are {named}; give their numbers, from 0")
    return array.astype(np.int64, copy=False), named
