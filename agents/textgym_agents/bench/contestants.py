"""Who is compared on the same load: Hugging Face ``generate``, its continuous batching, our collections, a bare decode loop.

Left out on purpose: rewards and learning. Every contestant writes the texts of the load, sampled from the model at temperature
1 and ended where the load's table says; its ``run`` returns the useful tokens that it wrote and the seconds that it took.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessor, PreTrainedModel

from textgym import TextGenVectorEnv
from textgym_agents.ahead import Ahead
from textgym_agents.bench.load import Load
from textgym_agents.collector import Collector, collect
from textgym_agents.decode import Decoder, Sampled
from textgym_agents.model import ActorCritic
from textgym_agents.policy import CausalLMPolicy, Step
from textgym_agents.sampling import Sampling


class Contestant(Protocol):
    """Somebody who does the load's work."""

    def run(self) -> tuple[float, float]:
        """Do it once. Returns the useful work done, and the seconds that it took."""
        ...

    def close(self) -> None:
        """Let go of threads and processes."""
        ...


class InProcess:
    """A contestant that is a function: called, and timed from outside."""

    def __init__(self, work: Callable[[], float]) -> None:
        self.work = work

    def run(self) -> tuple[float, float]:
        """Call the function, by the clock."""
        start = time.perf_counter()
        done = self.work()
        return done, time.perf_counter() - start

    def close(self) -> None:
        """Nothing to let go of."""


class BestThreads:
    """A contestant on one torch thread or on all: on which it is faster in its first run, which is not timed.

    Small passes are often faster on one thread. Ours decides that for itself; everyone gets the same chance.

    Args:
        make: builds the contestant.
        choose: False leaves no choice but all threads.

    Attributes:
        threads: those that it runs on; 0 before the first run.
    """

    def __init__(self, make: Callable[[], Contestant], *, choose: bool = True) -> None:
        self.threads = 0
        self._candidates: dict[int, Contestant] = {}
        for threads in {1, torch.get_num_threads()} if choose else {torch.get_num_threads()}:
            with _on(threads):
                self._candidates[threads] = make()

    def run(self) -> tuple[float, float]:
        """Run; the first time on every candidate number of threads."""
        if not self.threads:
            figures = {}
            for threads, contestant in self._candidates.items():
                with _on(threads):
                    figures[threads] = contestant.run()
            self.threads = max(figures, key=lambda threads: figures[threads][0] / figures[threads][1])
            for threads in set(figures) - {self.threads}:
                self._candidates.pop(threads).close()
            return figures[self.threads]
        with _on(self.threads):
            return self._candidates[self.threads].run()

    def close(self) -> None:
        """Close whoever is left."""
        for contestant in self._candidates.values():
            contestant.close()


@contextmanager
def _on(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ForcedLengths(CausalLMPolicy):
    """Our policy, whose texts end exactly where the load says; whatever else is sampled stays as it is.

    Attributes:
        sampled: tokens sampled so far.
    """

    def __init__(self, model: ActorCritic, num_slots: int, load: Load, *, seed: int = 0) -> None:
        super().__init__(model, num_slots, seed=seed)
        self.record_soon()  # as in any long run; the untimed round pays for it
        self.load = load
        self.sampled = 0
        self._fresh = np.ones(num_slots, dtype=np.bool_)
        self._left = np.zeros(num_slots, dtype=np.int64)

    def reset_slots(self, slots: Sequence[int] | np.ndarray) -> None:
        """Forget texts and their targets."""
        super().reset_slots(slots)
        self._fresh[slots] = True

    def act(
        self,
        obs: Any,
        slots: Sequence[int] | np.ndarray,
        lengths: npt.NDArray[np.int64] | None = None,
        allowed: torch.Tensor | None = None,
        ahead: Ahead | None = None,
    ) -> Step:
        """Sample, and put end-of-text where it is due and nowhere else."""
        slots = np.asarray(slots)
        self._read_targets(obs, slots)
        return super().act(obs, slots, lengths, allowed, ahead)

    def _written(self, slots: npt.NDArray[np.int64], sampled: Sampled) -> list[int]:
        self._force(slots, sampled)
        return super()._written(slots, sampled)

    def _read_targets(self, obs: Any, slots: npt.NDArray[np.int64]) -> None:
        for i in np.flatnonzero(self._fresh[slots]):
            text = [token for token in obs[i, : self.load.max_prompt_tokens + 1].tolist() if token >= 0]
            if self.load.has(text):  # else it is carried over, and goes on to the target that it has
                self._left[slots[i]] = self.load.target(text)
        self._fresh[slots] = False

    def _force(self, slots: npt.NDArray[np.int64], sampled: Sampled) -> None:
        self.sampled += len(slots)
        self._left[slots] -= 1
        eos, tokens = self.load.tokenizer.eos_token_id, sampled.tokens.numpy()  # in place: this is all that the load adds
        tokens[tokens == eos] = eos + 1
        tokens[self._left[slots] == 0] = eos


class ForcedEnd(LogitsProcessor):
    """The same for ``generate``: end-of-text is certain at a row's target, and impossible before it."""

    def __init__(self, targets: torch.Tensor, prompt_width: int, eos: int) -> None:
        self.targets, self.prompt_width, self.eos = targets, prompt_width, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores of end-of-text."""
        due = input_ids.shape[1] - self.prompt_width + 1 >= self.targets
        scores[:, self.eos] = -float("inf")
        scores[due] = -float("inf")
        scores[due, self.eos] = 0.0
        return scores


def make_envs(load: Load, slots: int, seed: int) -> TextGenVectorEnv:
    """Make the environment that our contestants play."""
    envs = TextGenVectorEnv(slots, load, autoreset_mode=AutoresetMode.DISABLED, output="torch", infos="objects")
    envs.reset(seed=seed)
    return envs


def drained(model: ActorCritic, load: Load, slots: int, seed: int) -> InProcess:
    """Our ``collect``: the load's episodes, all waited for."""
    policy, envs = ForcedLengths(model, slots, load, seed=seed), make_envs(load, slots, seed)

    def work() -> float:
        load.handed_out = 0
        return float(collect(envs, policy, len(load.prompts)).num_tokens.sum())

    return InProcess(work)


def carried_over(model: ActorCritic, load: Load, slots: int, seed: int, *, has_learned: bool) -> InProcess:
    """Our collections with what is unfinished carried over: one after another, never drained.

    With ``has_learned`` as if there were an update after each: its cache of the texts carried over is then rebuilt by prefill.

    The work is the tokens *sampled* between the clock's start and stop. A collection hands back texts that were begun
    before it and leaves others unfinished; every sampled token ends up in exactly one collection, so in a steady state that is
    the rate at which useful tokens are had, and no token that an earlier collection paid for is counted.
    """
    policy, envs = ForcedLengths(model, slots, load, seed=seed), make_envs(load, slots, seed)
    collector = Collector(envs, policy, carry_over=True)

    def work() -> float:
        before = policy.sampled
        collector.collect(len(load.prompts), has_learned=has_learned)
        return float(policy.sampled - before)

    return InProcess(work)


def batches(lm: PreTrainedModel, load: Load, slots: int) -> InProcess:
    """Hugging Face ``generate`` with its KV cache, in batches of ``slots`` prompts, as trlX and TRL's PPO call it."""
    eos, pad = load.tokenizer.eos_token_id, load.tokenizer.bos_token_id

    def work() -> float:
        tokens = 0
        for start in range(0, len(load.prompts), slots):
            prompts = load.prompts[start : start + slots]
            targets = torch.from_numpy(load.targets[start : start + slots])
            width = max(len(ids) for ids in prompts)
            ids = torch.full((len(prompts), width), pad)
            for row, prompt in zip(ids, prompts, strict=True):
                row[width - len(prompt) :] = torch.from_numpy(prompt)
            out = lm.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=(ids != pad).long(),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=load.max_new_tokens,
                eos_token_id=eos,
                pad_token_id=pad,
                use_cache=True,
                logits_processor=[ForcedEnd(targets, width, eos)],
            )
            tokens += int(((out[:, width:] == eos).int().argmax(1) + 1).sum())
        return tokens

    return InProcess(work)


def continuous_settings(load: Load, slots: int, seed: int) -> dict[str, Any]:
    """Give the settings of transformers' continuous batching: of what was tried on a CPU, the fastest.

    A paged cache in pages of 32 tokens (16 to 144 made no difference) with room for every text, no sharing of pages between
    prompts (a fifth slower), batches with room for a few prompts beside a token of every text (a much larger room is a third
    slower, less makes prompts wait). Asynchronous batching and graphs exist for accelerators only.
    """
    page = 32
    return {
        "page_size": page,
        "num_blocks": slots * (-(-load.context_length // page) + 1),
        "max_batch_tokens": max(128, 4 * slots),
        "max_requests_per_batch": slots,
        "allow_block_sharing": False,
        "use_async_batching": False,
        "use_cuda_graph": False,
        "seed": seed,
    }


class ContinuousBatching:
    """transformers' own continuous batching, its manager kept alive between runs; a text's length is its ``max_new_tokens``."""

    def __init__(self, lm: PreTrainedModel, load: Load, slots: int, seed: int) -> None:
        self.load = load
        settings = ContinuousBatchingConfig(**continuous_settings(load, slots, seed))
        sampling = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=-1,
            pad_token_id=0,
            max_new_tokens=load.max_new_tokens,
        )
        own = copy.deepcopy(lm)  # the manager changes the kind of attention of the model that it is given
        self._context: AbstractContextManager[Any] = own.continuous_batching_context_manager(  # type: ignore[operator]
            generation_config=sampling, continuous_batching_config=settings, block=True, timeout=5, warmup=False
        )
        self._manager = self._context.__enter__()

    def run(self) -> tuple[float, float]:
        """Hand in every prompt, wait for every text."""
        start = time.perf_counter()
        for prompt, target in zip(self.load.prompts, self.load.targets, strict=True):
            self._manager.add_request(prompt.tolist(), max_new_tokens=int(target), eos_token_id=-1)
        tokens = finished = 0
        while finished < len(self.load.prompts):
            result = self._manager.get_result(timeout=1)
            if result is None and not self._manager.is_running():
                raise RuntimeError("transformers' continuous batching stopped before every text was written")
            if result is not None and result.is_finished():
                if result.error is not None:
                    raise RuntimeError(f"transformers' continuous batching failed: {result.error}")
                finished += 1
                tokens += len(result.generated_tokens)
        return tokens, time.perf_counter() - start

    def close(self) -> None:
        """Stop its thread."""
        self._context.__exit__(None, None, None)


class DecodeFloor:
    """The bare decode loop: one token per row and pass over rows that are always busy, sampling included.

    No prompt is ever read, no environment stepped, nothing kept. Rows have the lengths that they have in a steady state over
    the load; the table of lengths is made before the clock starts. As plain loops do, attention of all rows reads as many
    columns as the longest row has, and no pass is recorded; small passes run on one thread where our own do.
    """

    def __init__(self, model: ActorCritic, load: Load, slots: int, seed: int) -> None:
        self.decoder = Decoder(model, slots, Sampling())
        self.generator = torch.Generator().manual_seed(seed)
        self.columns = _steady_columns(load, slots, steps=max(1, load.useful // slots))
        self.tokens = torch.zeros(slots, dtype=torch.int64)

    @torch.no_grad()
    def run(self) -> tuple[float, float]:
        """Decode as many tokens as the load has, rounded down to whole passes."""
        start = time.perf_counter()
        for columns in self.columns:
            uniforms = torch.rand(len(columns), generator=self.generator)
            width = int(columns.max()) + 1
            with self.decoder._small(len(columns)):
                states = self.decoder._one_each(self.tokens, torch.from_numpy(columns), width)
                self.tokens = self.decoder.sample(states, uniforms).tokens
        return self.columns.size, time.perf_counter() - start

    def close(self) -> None:
        """Nothing to let go of."""


def _steady_columns(load: Load, slots: int, steps: int) -> np.ndarray:
    """Give the column at which each row writes, int64 (steps, slots), after a run-in of twice the longest text."""
    lengths = [len(prompt) for prompt in load.prompts]
    numbers = np.arange(slots)
    age = np.zeros(slots, dtype=np.int64)
    table = []
    for step in range(2 * load.max_new_tokens + steps):
        # A token is decoded from the one before it: the last of the prompt, or an earlier one of the response.
        at = np.array([lengths[number % len(lengths)] for number in numbers]) + age - 1
        if step >= 2 * load.max_new_tokens:
            table.append(at)
        age += 1
        ended = age >= load.targets[numbers % len(lengths)]
        numbers[ended] = numbers.max() + 1 + np.arange(ended.sum())
        age[ended] = 0
    return np.stack(table)


def shares(model: ActorCritic, load: Load, slots: int, seed: int) -> Mapping[str, float]:
    """Say where the time of one drained collection goes, as parts of 1, by clocks around the pieces.

    "model" is every pass over the cache, with its masks and the moves of its rows; "sampling" the head, the draw and the
    values; "environment" the vector environment's steps and resets; "load" putting the ends of texts where the load has them,
    which is no part of a real collection; "bookkeeping" the rest: which slot has which row, and the collection's tables. Clocks
    count what is inside of them and not inside of another.
    """
    policy, envs = ForcedLengths(model, slots, load, seed=seed), make_envs(load, slots, seed)
    spent = {"model": 0.0, "sampling": 0.0, "environment": 0.0, "load": 0.0}
    inner = [0.0]  # seconds that clocks inside of each running one have counted

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                spent[name] += seconds - inner.pop()
                inner[-1] += seconds

        return call

    decoder = policy._decoder
    passes = [(decoder, "one_each"), (decoder, "several"), (decoder, "mixed"), (decoder.cache, "copy_rows")]
    places = [(*place, "model") for place in passes] + [(decoder, "sample", "sampling")]
    places += [(envs, "step", "environment"), (envs, "step_many", "environment"), (envs, "reset", "environment")]
    places += [(policy, "_read_targets", "load"), (policy, "_force", "load")]
    load.handed_out = 0
    collect(envs, policy, len(load.prompts))
    for place, method, name in places:
        setattr(place, method, clocked(name, getattr(place, method)))
    try:
        load.handed_out = 0
        start = time.perf_counter()
        collect(envs, policy, len(load.prompts))
        seconds = time.perf_counter() - start
    finally:
        for place, method, _ in places:
            delattr(place, method)
    parts = {name: value / seconds for name, value in spent.items()}
    return {**parts, "bookkeeping": 1.0 - sum(parts.values())}
