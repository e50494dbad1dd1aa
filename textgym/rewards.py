"""From what a reward function returns to one number per token: ``resolve``, the only place that looks at a reward's type.

Left out on purpose: guessing. The Python *type* of an item says what it means, never its length, and whatever is not in
the table below is an error that names the episode. Nothing is padded, cut or set to 0.

========================================  ===========================================================================
an item that is                           means
========================================  ===========================================================================
a real number (Python, numpy, 0-d)        paid on the episode's last agent token, whatever ended it
1-D array or tensor, list of numbers      one per response token; must be 0 where the environment wrote the token
list of ``Span``                          characters of the response text; ``[]`` is no reward
Mapping name -> any of the above          named criteria, weighted and added up (a reward without a name has no weight)
========================================  ===========================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Span
from textgym.ledger import TOLERANCE, Ledger

Reward: TypeAlias = Any  # float | array (T,) | list[float] | list[Span] | Mapping[str, those]; `resolve` is the check
RewardFn: TypeAlias = Callable[[Sequence[Episode]], Sequence[Reward]]
StreamsFn: TypeAlias = Callable[[Sequence[Episode]], Sequence[npt.ArrayLike]]

_ALLOWED = (
    "return one finite real number (paid on the last agent token), one number per response token as a list, 1-D array or "
    "tensor, a list of Span(start, end, reward), or a Mapping from criterion names to those"
)
_TOO_SMALL = "that is too small for float32 and would become 0"
_TEXT = (str, bytes, bytearray, memoryview)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_PLAIN = frozenset((float, int, np.float64))


class NonCausalSplitWarning(UserWarning):
    """A span with ``split="uniform"`` was paid; under reward-to-go it teaches length."""


@dataclass(frozen=True, eq=False)
class Resolved:
    """What one episode's reward came to, T = its response tokens."""

    token_rewards: npt.NDArray[np.float32]
    """(T,) weighted sum of the criteria."""
    span_streams: npt.NDArray[np.int64] | None
    """(T,) partition that the spans named, -1 on environment tokens; None where no span named a stream."""
    criteria: Mapping[str, float]
    """Total of each named criterion before weighting; empty for an unnamed reward."""
    ledger: Ledger
    """What was asked for; account ``weight/<name>`` holds what the weight of a criterion took, ``nothing`` that the reward
    was an empty list."""


def resolve(
    rewards: Sequence[Reward], episodes: Sequence[Episode], weights: Mapping[str, float] | None = None
) -> list[Resolved]:
    """Turn the rewards of a batch of episodes into token rewards, or say which item cannot be.

    Args:
        rewards: what a reward function returned, one item per episode.
        episodes: the episodes, in the same order.
        weights: factor of each named criterion; names that are not listed weigh 1.

    Returns:
        One ``Resolved`` per episode. The sum of its token rewards is the weighted sum of what was asked for; its ledger is
        checked.

    Raises:
        ValueError: naming the episode, the value and what is allowed.
    """
    items = _items(rewards, len(episodes))
    return [_resolve_one(item, episode, weights or {}) for item, episode in zip(items, episodes, strict=True)]


def _items(rewards: Any, count: int) -> list[Reward]:
    if not _is_batch(rewards):
        raise ValueError(
            f"the reward function returned a {type(rewards).__name__} for {count} episodes; return a sequence with one "
            "reward per episode"
        )
    if len(rewards) != count:
        raise ValueError(
            f"the reward function returned {len(rewards)} rewards for {count} episodes; return one per episode, in their order"
        )
    return [rewards[i] for i in range(count)]


def _is_batch(rewards: Any) -> bool:
    """Tell whether ``rewards[i]`` is the i-th item (in a table's column it is the item with the label i)."""
    if type(rewards) is list:
        return True
    if isinstance(rewards, _TEXT):
        return False
    if isinstance(rewards, np.ndarray) or (hasattr(rewards, "detach") and not getattr(rewards, "is_nested", False)):
        return len(rewards.shape) >= 1
    return isinstance(rewards, Sequence)


def _resolve_one(item: Reward, episode: Episode, weights: Mapping[str, float]) -> Resolved:
    if type(item) in _PLAIN and (resolved := _resolve_plain(item, episode)) is not None:
        return resolved
    if not isinstance(item, Mapping):
        paid, char_streams = _lay(item, episode, "")
        ledger = Ledger(_sum(item, episode, ""), {"nothing": 0.0} if isinstance(item, list | tuple) and not item else {})
        return _resolved(paid, char_streams, {}, ledger, episode)
    asked = 0.0
    accounts: dict[str, float] = {} if item else {"nothing": 0.0}
    total = np.zeros(len(episode.ids), dtype=np.float64)
    criteria: dict[str, float] = {}
    claimed: npt.NDArray[np.int64] | None = None
    for name, part in item.items():
        if not isinstance(name, str):
            raise _error(episode, f"has a criterion named {_show(name)}", "criterion names are strings")
        if isinstance(part, Mapping):
            raise _error(episode, f"has a Mapping inside criterion {name!r}", "criteria cannot be nested; " + _ALLOWED)
        paid, char_streams = _lay(part, episode, f" in criterion {name!r}")
        weight = _weight(weights, name)
        criteria[name] = _sum(part, episode, f" in criterion {name!r}")
        asked += criteria[name]
        if isinstance(part, list | tuple) and not part:
            accounts["nothing"] = 0.0
        if weight != 1.0:
            accounts[f"weight/{name}"] = (1.0 - weight) * criteria[name]
        total += _weigh(paid, weight, name, episode)
        claimed = _merge(claimed, char_streams, episode)
    for name in weights:
        if name not in item:
            raise _error(episode, f"has criteria {sorted(item)}", f"weights names {name!r}, which is none of them")
    return _resolved(total, claimed, criteria, Ledger(asked, accounts), episode)


def _resolve_plain(number: float, episode: Episode) -> Resolved | None:
    """Pay a plain number, the commonest reward; None where the last token is not the agent's, or the number is to be refused.

    Between two passes of a model each of numpy's functions is slow at its first use, so only two are used here.
    """
    try:
        value = float(number)
    except OverflowError:
        return None
    if not abs(value) <= _FLOAT32_MAX or len(episode.ids) == 0 or not episode.agent_mask[-1]:
        return None
    token_rewards = np.zeros(len(episode.ids), dtype=np.float32)
    token_rewards[-1] = value
    paid = token_rewards.item(-1)
    if paid == 0 != value:
        return None
    ledger = Ledger(value)
    ledger.check(paid, abs(paid), f"episode {episode.episode_id}")
    return Resolved(token_rewards, None, {}, ledger)


def _weight(weights: Mapping[str, float], name: str) -> float:
    try:
        return float(weights.get(name, 1.0))
    except OverflowError:
        return math.inf


def _weigh(paid: npt.NDArray[np.float64], weight: float, name: str, episode: Episode) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused once all criteria are added up
        weighted = paid * weight
    for token in np.flatnonzero((paid != 0) & (weighted == 0) & (weight != 0))[:1]:
        raise _error(episode, f"has {paid[token]} times {weight} on token {token} in criterion {name!r}", _TOO_SMALL)
    return weighted


def _resolved(
    paid: npt.NDArray[np.float64],
    char_streams: npt.NDArray[np.int64] | None,
    criteria: Mapping[str, float],
    ledger: Ledger,
    episode: Episode,
) -> Resolved:
    token_rewards = _as_float32(paid, episode)
    check_ledger(ledger, token_rewards, episode.episode_id)
    return Resolved(token_rewards, _token_streams(char_streams, episode), criteria, ledger)


def check_ledger(ledger: Ledger, token_rewards: npt.NDArray[np.float32], episode_id: int) -> None:
    """Check that an episode's ledger adds up to its token rewards; see ``Ledger.check``."""
    paid = float(token_rewards.sum(dtype=np.float64))
    if not abs(ledger.missing(paid)) <= TOLERANCE:  # else it adds up, whatever its size
        size = float(np.abs(token_rewards).sum(dtype=np.float64)) + sum(abs(amount) for amount in ledger.accounts.values())
        ledger.check(paid, size, f"episode {episode_id}")


def _sum(item: Reward, episode: Episode, where: str) -> float:
    """Add up what a checked item asks for, from the item itself: the other side of the ledger is what was laid."""
    item = from_tensor(item, episode, where)
    if _is_number(item):
        return float(item)
    if isinstance(item, np.ndarray):
        return float(item.sum(dtype=np.float64))
    values = (value.reward if isinstance(value, Span) else value for value in item)
    return math.fsum(float(from_tensor(value, episode, where)) for value in values)


def _lay(item: Reward, episode: Episode, where: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64] | None]:
    """Lay one unnamed reward on the tokens: float64 (T,), and the stream each character was given or None."""
    item = from_tensor(item, episode, where)
    if _is_number(item):
        return _lay_scalar(_finite(item, episode, where), episode, where), None
    if isinstance(item, np.ndarray):
        if item.ndim != 1 or item.dtype.kind not in "iuf" or isinstance(item, np.ma.MaskedArray):
            raise _error(episode, f"is a {type(item).__name__} of shape {item.shape} and dtype {item.dtype}{where}", _ALLOWED)
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes inf, which is refused
            values = item.astype(np.float64)
        for token in np.flatnonzero((values == 0) & (item != 0))[:1]:
            raise _error(episode, f"has {item[token]} on token {token}{where}", _TOO_SMALL)
        return _lay_tokens(values, episode, where), None
    if isinstance(item, list | tuple):
        values = [from_tensor(value, episode, where) for value in item]
        if all(isinstance(value, Span) for value in values):
            return _lay_spans(values, episode, where)
        if all(_is_number(value) for value in values):
            return _lay_tokens(np.array([_finite(v, episode, where) for v in values], dtype=np.float64), episode, where), None
        kinds = sorted({type(value).__name__ for value in values})
        raise _error(episode, f"is a list of {', '.join(kinds)}{where}", _ALLOWED)
    raise _error(episode, f"is {_show(item)}, a {type(item).__name__}{where}", _ALLOWED)


def _lay_scalar(value: float, episode: Episode, where: str) -> npt.NDArray[np.float64]:
    paid = np.zeros(len(episode.ids), dtype=np.float64)
    agent_tokens = episode.agent_mask.nonzero()[0]
    if len(agent_tokens) == 0:
        raise _error(episode, f"is {value}{where} but the agent wrote no token to pay it on", "return []")
    paid[agent_tokens[-1]] = value
    return paid


def _lay_tokens(values: npt.NDArray[np.float64], episode: Episode, where: str) -> npt.NDArray[np.float64]:
    if len(values) != len(episode.ids):
        raise _error(
            episode,
            f"has {len(values)} values{where} but its response has {len(episode.ids)} tokens",
            f"return one float, {len(episode.ids)} floats, or a list of Span(start, end, reward)",
        )
    for token in np.flatnonzero(~(np.abs(values) <= _FLOAT32_MAX))[:1]:  # NaN compares false
        raise _error(episode, f"has {values[token]} on token {token}{where}", "rewards are finite float32 numbers")
    for token in np.flatnonzero((values != 0) & ~episode.agent_mask)[:1]:
        raise _error(
            episode,
            f"has {values[token]} on token {token}{where}, which the environment wrote",
            "only tokens of the agent (episode.agent_mask) can be paid",
        )
    return values


def _lay_spans(
    spans: Sequence[Span], episode: Episode, where: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64] | None]:
    paid = np.zeros(len(episode.ids), dtype=np.float64)
    char_streams: npt.NDArray[np.int64] | None = None
    for span in spans:
        value = _check_span(span, episode, where)
        tokens = episode.agent_tokens(span.start, span.end)
        if len(tokens) == 0:
            raise _error(
                episode, f"has {_show(span)}{where} over no token of the agent", "a span covers text that the agent wrote"
            )
        if span.split == "uniform":
            warnings.warn(
                'Span(split="uniform") is not causal: under reward-to-go a good span teaches longer text and a bad one '
                'shorter; use split="last", or returns over the whole stream',
                NonCausalSplitWarning,
                stacklevel=2,
            )
            if value != 0 and value / len(tokens) == 0:
                raise _error(episode, f"has {_show(span)}{where}", _TOO_SMALL)
            paid[tokens] += value / len(tokens)
        else:
            paid[tokens[-1]] += value
        if span.stream is not None:
            mine = np.full(len(episode.text), -1, dtype=np.int64)
            mine[span.start : span.end] = span.stream
            char_streams = _merge(char_streams, mine, episode)
    return paid, char_streams


def _check_span(span: Span, episode: Episode, where: str) -> float:
    length = len(episode.text)
    for edge in (span.start, span.end):
        if not _is_whole(edge):
            raise _error(episode, f"has {_show(span)}{where}", "start and end are whole numbers of characters")
    if not 0 <= span.start < span.end <= length:
        raise _error(
            episode, f"has {_show(span)}{where}", f"0 <= start < end <= {length} (characters of its text {episode.text!r})"
        )
    if not (isinstance(span.split, str) and span.split in ("last", "uniform")):
        raise _error(episode, f"has {_show(span)}{where}", "split is 'last' or 'uniform'")
    if span.stream is not None and not (_is_whole(span.stream) and 0 <= span.stream < 2**31):
        raise _error(episode, f"has {_show(span)}{where}", "stream is None or a whole number from 0 to 2**31 - 1")
    value = from_tensor(span.reward, episode, where)
    if not _is_number(value):
        raise _error(episode, f"has {_show(span)}{where}", "a span's reward is one real number")
    return _finite(value, episode, where)


def _merge(
    claimed: npt.NDArray[np.int64] | None, more: npt.NDArray[np.int64] | None, episode: Episode
) -> npt.NDArray[np.int64] | None:
    """Join two partitions of the characters (-1: unclaimed); a character claimed by two streams is an error."""
    if claimed is None or more is None:
        return more if claimed is None else claimed
    for char in np.flatnonzero((claimed >= 0) & (more >= 0) & (claimed != more))[:1]:
        raise _error(
            episode,
            f"puts character {char} into stream {claimed[char]} and into stream {more[char]}",
            "one partition per episode: spans that overlap must name the same stream",
        )
    return np.where(claimed >= 0, claimed, more)


def _token_streams(char_streams: npt.NDArray[np.int64] | None, episode: Episode) -> npt.NDArray[np.int64] | None:
    """Give each token the stream of its last claimed character; unclaimed agent tokens are stream 0."""
    if char_streams is None:
        return None
    streams = np.zeros(len(episode.ids), dtype=np.int64)
    # The last claimed character at or before each character, so that a token's trailing space does not lose its stream.
    last_claimed = np.maximum.accumulate(np.where(char_streams >= 0, np.arange(len(char_streams)), -1))
    starts, ends = episode.offsets[:, 0], episode.offsets[:, 1]
    wide = ends > starts
    last = np.where(wide, last_claimed[np.maximum(ends - 1, 0)] if len(last_claimed) else -1, -1)
    covered = wide & (last >= starts)
    streams[covered] = char_streams[last[covered]]
    streams[~episode.agent_mask] = -1
    return streams


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf" and not isinstance(value, np.ma.MaskedArray)
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_ | np.timedelta64)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def _finite(value: Any, episode: Episode, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= _FLOAT32_MAX:
        raise _error(
            episode, f"has {_show(value)}{where}", f"rewards are finite and at most {_FLOAT32_MAX:.4g} in size (float32)"
        )
    if number == 0 and value != 0:
        raise _error(episode, f"has {_show(value)}{where}", _TOO_SMALL)
    return number


def _as_float32(paid: npt.NDArray[np.float64], episode: Episode) -> npt.NDArray[np.float32]:
    if not np.abs(paid).max(initial=0.0) <= _FLOAT32_MAX:  # NaN compares false
        token = np.flatnonzero(~(np.abs(paid) <= _FLOAT32_MAX))[0]
        raise _error(episode, f"adds up to {paid[token]} on token {token}", "the weighted sum of the criteria must fit float32")
    laid = paid.astype(np.float32)
    if np.count_nonzero(laid) < np.count_nonzero(paid):
        token = np.flatnonzero((paid != 0) & (laid == 0))[0]
        raise _error(episode, f"adds up to {paid[token]} on token {token}", "that is too small for float32 and would become 0")
    return laid


def from_tensor(item: Any, episode: Episode, where: str) -> Any:
    """Turn a torch tensor into an array without importing torch; everything else passes."""
    if not (hasattr(item, "detach") and hasattr(item, "cpu")):
        return item
    try:
        tensor = item.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantised, meta, nested tensors
        raise _error(episode, f"is a tensor that has no numpy form ({error}){where}", _ALLOWED) from error


def _show(item: Any) -> str:
    try:
        return repr(item)[:200]
    except Exception:  # the message is about the type then
        return "an object that cannot be shown"


def _error(episode: Episode, what: str, allowed: str) -> ValueError:
    return ValueError(f"reward for episode {episode.episode_id} {what}; {allowed}")
