"""Reward functions written for TRL or trlX, as they are, as ``reward_fn`` of a task.

Their numbers per text stay what they are, one score of the whole response. trlX's dense lists index the tokens of the
response encoded *again*; here they are carried over to the sampled tokens, or refused.

Left out on purpose: weights, which are the environment's own (``weights={name: w}``) and stand in its ledger; TRL's trainer
state and logging hooks, which there is no trainer to fill: hand in what a function needs as ``extra``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode
from textgym.prompts import PROMPT
from textgym.rewards import Reward, RewardFn
from textgym.tokenizer import TextTokenizer

_OURS = ("prompts", "completions", "completion_ids", "samples", "outputs", "tokenizer")


def trl_rewards(
    functions: Callable[..., Any] | Sequence[Callable[..., Any]], *, extra: Mapping[str, Any] | None = None
) -> RewardFn:
    """Adapt reward functions of TRL's ``GRPOTrainer``: ``fn(prompts, completions, completion_ids, **columns)``.

    Each function becomes a criterion of its own name, paid on the episode's last agent token. Columns are the prompts'
    metadata, a list each. Where prompts are conversations, completions are too: ``[{"role": "assistant", "content": text}]``.
    None means that a function does not apply: it pays nothing, which the ledger shows. Coroutines run side by side.

    Args:
        functions: one or several, with different ``__name__``.
        extra: further arguments for all of them (``trainer_state``, ...).

    Raises:
        ValueError: two functions share a name. When called: a function gives another number of rewards than episodes, or none
            of them a number for an episode, the episodes' metadata differ in their keys, or a conversation has replies, whose
            roles nobody knows; names the episode.
    """
    listed = [functions] if callable(functions) else list(functions)
    names = [getattr(function, "__name__", type(function).__name__) for function in listed]
    if not listed or len(set(names)) < len(names):
        raise ValueError(f"the reward functions are named {names}; give one or more, each with a name of its own")

    def rewards(episodes: Sequence[Episode]) -> Sequence[Reward]:
        arguments = {
            "prompts": [episode.prompt.metadata.get(PROMPT, episode.prompt.text) for episode in episodes],
            "completions": [_completion(episode) for episode in episodes],
            "completion_ids": [episode.ids.tolist() for episode in episodes],
            **_columns(episodes, extra),
        }
        scores = dict(zip(names, _call(listed, arguments), strict=True))
        for name, values in scores.items():
            scores[name] = _one_each(values, episodes, name)
        out = []
        for number, episode in enumerate(episodes):
            row = {name: values[number] for name, values in scores.items()}
            if all(value is None for value in row.values()):
                raise ValueError(
                    f"no reward function applies to episode {episode.episode_id}: all of {', '.join(names)} returned None; TRL "
                    "would leave it out of the update, here each episode is rewarded: return 0.0, or add one that applies"
                )
            out.append({name: [] if value is None else _number(value) for name, value in row.items()})
        return out

    return rewards


def trlx_rewards(
    function: Callable[..., Any], tokenizer: Any, *, dense: bool = False, extra: Mapping[str, Any] | None = None
) -> RewardFn:
    """Adapt a reward function of trlX: ``fn(samples, prompts, outputs, tokenizer, **columns)``.

    ``outputs`` are the responses' texts, with end-of-text written out where it was sampled last; ``samples`` are prompt and
    output. Columns are the prompts' metadata, a list each.

    A score is a number, or with ``dense`` one number per token of ``outputs`` as the tokenizer encodes it (without special
    tokens). Where that gives the sampled ids, they go to them one by one. Otherwise each goes to the sampled token that holds
    the last character of its own token, so the sum stays.

    Args:
        function: the reward function.
        tokenizer: the task's; the function gets what it was made from.
        dense: whether the function scores each token.
        extra: further arguments for it.

    Raises:
        ValueError: when called: another number of scores than episodes, a score of another form or length, or one for a token
            that no sampled token of the agent stands for; names the episode.
    """
    text_tokenizer = TextTokenizer(tokenizer)

    def rewards(episodes: Sequence[Episode]) -> Sequence[Reward]:
        eos = text_tokenizer.piece(text_tokenizer.eos_token_id)
        prompts = [episode.prompt.text for episode in episodes]
        outputs = [episode.text + eos * _ends_in_eos(episode, text_tokenizer) for episode in episodes]
        arguments = {
            "samples": [prompt + output for prompt, output in zip(prompts, outputs, strict=True)],
            "prompts": prompts,
            "outputs": outputs,
            "tokenizer": text_tokenizer.source,
            **_columns(episodes, extra),
        }
        (scores,) = _call([function], arguments)
        scores = _one_each(scores, episodes, getattr(function, "__name__", "the reward function"))
        pairs = zip(scores, episodes, strict=True)
        return [_carry_over(score, episode, text_tokenizer) if dense else _single(score, episode) for score, episode in pairs]

    return rewards


def _carry_over(score: Any, episode: Episode, tokenizer: TextTokenizer) -> npt.NDArray[np.float64]:
    """Lay a dense list, one number per token of the response encoded again, on the sampled tokens: float64 (T,)."""
    values = _array(score)
    again = tokenizer.encode(episode.text)
    if _ends_in_eos(episode, tokenizer):
        again = np.append(again, tokenizer.eos_token_id)
    if values is None or values.shape != (len(again),):
        form = f"a {type(score).__name__}" if values is None else f"of shape {values.shape}"
        raise ValueError(
            f"the dense score of episode {episode.episode_id} is {form} but its output {episode.text!r} encodes to "
            f"{len(again)} tokens; give one number per token of the output, none for special tokens that the tokenizer adds"
        )
    if np.array_equal(again, episode.ids):
        return values  # `resolve` refuses what is not finite, or lies on the environment's tokens
    laid = np.zeros(len(episode.ids))
    text, offsets = tokenizer.offsets(again)
    for token in np.flatnonzero(values):
        start, end = offsets[token].tolist()
        if token == len(again) - 1 and again[token] == tokenizer.eos_token_id == episode.ids[-1]:
            target = len(episode.ids) - 1
        elif text != episode.text or start == end:
            target = -1
        else:
            target = episode.token_at(end - 1)
        if target < 0 or not episode.agent_mask[target]:
            raise ValueError(
                f"the dense score of episode {episode.episode_id} has {values[token]} on token {token} of its output "
                f"{episode.text!r} encoded again, {tokenizer.piece(again[token])!r}, and no sampled token of the agent "
                "stands for it; return Span(start, end, reward) in a reward_fn of your own"
            )
        laid[target] += values[token]
    return laid


def _ends_in_eos(episode: Episode, tokenizer: TextTokenizer) -> bool:
    return len(episode.ids) > 0 and bool(episode.ids[-1] == tokenizer.eos_token_id)


def _single(score: Any, episode: Episode) -> Any:
    values = _array(score)
    if values is None or values.ndim != 0:
        raise ValueError(
            f"the score of episode {episode.episode_id} is {score!r}; give one number, or say dense=True where there is one "
            "number per token of the output"
        )
    return _number(score)


def _array(score: Any) -> npt.NDArray[np.float64] | None:
    """Give a number, list, array or tensor as float64; None where it is none."""
    try:
        array = np.asarray(score.detach().cpu().numpy() if hasattr(score, "detach") else score)
        return array.astype(np.float64) if array.dtype.kind in "iufb" else None
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> Any:
    """Give a bool as the 0 or 1 that tensors make of it; the rest passes and is checked by ``resolve``."""
    return float(value) if isinstance(value, bool | np.bool_) else value


def _one_each(values: Any, episodes: Sequence[Episode], name: str) -> list[Any]:
    try:
        listed = list(values)
    except TypeError:
        listed = None
    if listed is None or len(listed) != len(episodes):
        count = f"a {type(values).__name__}" if listed is None else f"{len(listed)} rewards"
        raise ValueError(f"{name} returned {count} for {len(episodes)} episodes; return a list of one per episode")
    return listed


def _completion(episode: Episode) -> Any:
    if PROMPT not in episode.prompt.metadata:
        return episode.text
    if not episode.agent_mask.all():
        raise ValueError(
            f"episode {episode.episode_id} is a conversation with replies, and their roles stand nowhere; write a reward_fn of "
            "episodes, which have turns, for it"
        )
    return [{"role": "assistant", "content": episode.text}]


def _columns(episodes: Sequence[Episode], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the prompts' metadata as columns, a list each, and what is handed in for all."""
    names = [name for name in episodes[0].prompt.metadata if name != PROMPT] if episodes else []
    for episode in episodes:
        mine = {name for name in episode.prompt.metadata if name != PROMPT}
        if mine != {*names}:
            raise ValueError(
                f"the prompt of episode {episode.episode_id} has the metadata {sorted(mine)} and that of episode "
                f"{episodes[0].episode_id} {sorted(names)}; as columns of a batch, all must have the "
                "same (None where there is nothing)"
            )
    if clash := ({*names} | {*(extra or {})}) & {*_OURS} | {*names} & {*(extra or {})}:
        raise ValueError(
            f"{', '.join(sorted(clash))}: a column or an extra argument has the name of another argument; rename it"
        )
    return {name: [episode.prompt.metadata[name] for episode in episodes] for name in names} | dict(extra or {})


def _call(functions: Sequence[Callable[..., Any]], arguments: dict[str, Any]) -> list[Any]:
    """Call all functions with the same arguments; coroutines among their results are awaited together."""
    results = [function(**arguments) for function in functions]
    waiting = [number for number, result in enumerate(results) if inspect.isawaitable(result)]
    if waiting:

        async def gather() -> list[Any]:
            return await asyncio.gather(*(results[number] for number in waiting))

        with ThreadPoolExecutor(1) as thread:  # a loop of its own: where a notebook runs one, another cannot start
            done = thread.submit(asyncio.run, gather()).result()
        for number, result in zip(waiting, done, strict=True):
            results[number] = result
    return results
