"""100,000 random rewards through ``resolve``: each is paid as DESIGN's table says, or refused by the name of its episode.

Every item is made together with what it must come to, so the oracle shares no code with ``resolve``: a maker in ``RIGHT``
returns the item and the token rewards that plain loops over the table's sentences give; a maker in ``WRONG`` returns an item
that breaks one of those sentences. Left out on purpose: what the messages say beyond the name, which is in ``test_rewards``.
"""

import math
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import build_episode

from textgym import Episode, Span, resolve

RIGHT_ITEMS, WRONG_ITEMS = 52_000, 48_000
AT_LEAST = 400
"""How often every kind must occur."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
LONG = np.finfo(np.longdouble).maxexp > 2000  # on some machines a long double is a double
HUGE, TINY = (np.longdouble("1e4000"), np.longdouble("1e-4000")) if LONG else (math.inf, 1e-60)

# --- chance ---------------------------------------------------------------------------------------------------------------


def below(rng: np.random.Generator, count: int) -> int:
    return int(rng.random() * count)


def pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[below(rng, len(options))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    return rng.random() < probability


# --- episodes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An episode, and the same facts as plain lists, for the loops of the oracle."""

    episode: Episode = field(repr=False)
    offsets: list[tuple[int, int]]
    agent: list[bool]
    blocks: list[int]
    """The stream that spans name over each character, where they name one."""
    own: list[int]
    """The characters that the agent's tokens hold."""
    foreign: list[int]
    """All others."""

    def holders(self, start: int, end: int) -> list[int]:
        """The agent's tokens that hold at least one of the characters from ``start`` to before ``end``."""
        return [
            token
            for token, (first, stop) in enumerate(self.offsets)
            if self.agent[token] and any(start <= char < end for char in range(first, stop))
        ]


def build_case(number: int) -> Case:
    rng = np.random.default_rng(number)
    offsets = random_offsets(rng)
    length = offsets[-1][1] if offsets else 0
    share = pick(rng, [0.0, 0.6, 0.8, 1.0, 1.0])
    agent = [chance(rng, share) for _ in offsets]
    blocks = [pick(rng, [0, 1, 5, 2**31 - 1])] * length
    for char in range(1, length):
        blocks[char] = pick(rng, [0, 1, 2**31 - 1]) if chance(rng, 0.2) else blocks[char - 1]
    text = "".join(pick(rng, "ab. \né😀") for _ in range(length))
    held = {char for (start, end), mine in zip(offsets, agent, strict=True) if mine for char in range(start, end)}
    episode = build_episode(text, offsets, agent, episode_id=1000 + number)
    return Case(episode, offsets, agent, blocks, sorted(held), sorted({*range(length)} - held))


def random_offsets(rng: np.random.Generator) -> list[tuple[int, int]]:
    offsets: list[tuple[int, int]] = []
    end = 0
    for _ in range(below(rng, 13)):
        start, shape = end, rng.random()
        if shape < 0.15 and offsets and offsets[-1] != (end, end):
            start = offsets[-1][0]  # bytes of one character: both tokens hold it
        elif shape < 0.25 and end > 0:
            start, end = end - 1, end + 1  # a token that begins with the last byte of a character
        elif shape < 0.8:
            end += 1 + below(rng, 3)
        offsets.append((start, end))  # else a special token, which holds no character
    return offsets


def anywhere(case: Case) -> bool:
    return True


def with_tokens(case: Case) -> bool:
    return len(case.offsets) > 0


def with_agent_token(case: Case) -> bool:
    return any(case.agent)


def without_agent_token(case: Case) -> bool:
    return not any(case.agent)


def with_agent_text(case: Case) -> bool:
    return len(case.own) > 0


def with_environment_token(case: Case) -> bool:
    return not all(case.agent)


def with_foreign_text(case: Case) -> bool:
    return len(case.foreign) > 0


CASES = [build_case(number) for number in range(400)]


def where(fits: Callable[[Case], bool]) -> list[Case]:
    return [case for case in CASES if fits(case)]


# --- numbers --------------------------------------------------------------------------------------------------------------

FLOATS = [np.float16, np.float32, np.float64, np.longdouble, np.dtype(">f8")]
FLOATS += [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIGNED = [np.int8, np.int16, np.int32, np.int64, torch.int8, torch.int32, torch.int64]
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64, torch.uint8]
DTYPES = [*FLOATS, *SIGNED, *UNSIGNED]


def boxed(values: Any, dtype: Any, grad: bool = False) -> Any:
    if isinstance(dtype, torch.dtype):
        return torch.tensor(values, dtype=dtype, requires_grad=grad and dtype.is_floating_point)
    return np.array(values, dtype=dtype)


def coarse(rng: np.random.Generator, dtype: Any) -> float:
    """An amount that ``dtype`` holds exactly."""
    quarters = below(rng, 401) - 200
    if dtype in FLOATS:
        return quarters / 4
    return quarters // 4 if dtype in SIGNED else abs(quarters)


def a_number(rng: np.random.Generator) -> tuple[Any, float]:
    """A real number of any type, and its value."""
    kind = below(rng, 4)
    if kind == 0:
        value = pick(rng, [0.0, 1e-30, 1 / 3, -1.0, -1e6]) * (0.5 + rng.random())
        return value, value
    count = below(rng, 2001) - 1000
    if kind == 1:
        return count, float(count)
    if kind == 2:
        return Fraction(count, 7), count / 7
    dtype = pick(rng, DTYPES)
    value = coarse(rng, dtype)
    box = boxed(value, dtype, grad=chance(rng, 0.2))
    return (box[()] if chance(rng, 0.5) else box), value  # [()]: the scalar in a 0-d array


# --- right rewards --------------------------------------------------------------------------------------------------------


@dataclass
class Paid:
    """A right item and what it must come to."""

    item: Any
    tokens: list[float]
    amounts: list[float]
    """Each reward that was asked for; together they are the episode's return."""
    claims: list[tuple[int, int, int]] = field(default_factory=list)
    """start, end and stream of each span that names one."""
    criteria: dict[str, float] = field(default_factory=dict)


def on_last(case: Case, item: Any, value: float) -> Paid:
    tokens = [0.0] * len(case.agent)
    tokens[max(token for token, agent in enumerate(case.agent) if agent)] = value
    return Paid(item, tokens, [value])


def number(rng: np.random.Generator, case: Case) -> Paid:
    return on_last(case, *a_number(rng))


def huge_number(rng: np.random.Generator, case: Case) -> Paid:
    value = pick(rng, [FLOAT32_MAX, 3e38, -FLOAT32_MAX])
    return on_last(case, pick(rng, [float, int, Fraction, np.float64, np.float32, np.longdouble, torch.tensor])(value), value)


def array(rng: np.random.Generator, case: Case) -> Paid:
    dtype = pick(rng, DTYPES)
    values = [coarse(rng, dtype) if agent else 0 for agent in case.agent]
    if chance(rng, 0.2):
        return Paid(boxed([value for value in values for _ in "ab"], dtype)[::2], values, values)  # not contiguous
    return Paid(boxed(values, dtype, grad=chance(rng, 0.2)), values, values)


def numbers(rng: np.random.Generator, case: Case) -> Paid:
    pairs = [a_number(rng) if agent else (pick(rng, [0, -0.0, np.int8(0)]), 0.0) for agent in case.agent]
    values = [value for _, value in pairs]
    return Paid(pick(rng, [list, tuple])(form for form, _ in pairs), values, values)


def nothing(rng: np.random.Generator, case: Case) -> Paid:
    return Paid(pick(rng, [[], ()]), [0.0] * len(case.agent), [])


def a_span(rng: np.random.Generator, case: Case) -> tuple[Span, float]:
    """A span over at least one character of the agent's, and its reward."""
    start = pick(rng, case.own)
    end = start + 1
    while start > 0 and chance(rng, 0.6):
        start -= 1
    while end < len(case.blocks) and chance(rng, 0.6):
        end += 1
    form, value = a_number(rng)
    one_block = len(set(case.blocks[start:end])) == 1
    stream = case.blocks[start] if one_block and chance(rng, 0.6) else None
    whole = pick(rng, [int, int, np.int64, np.uint8])
    return Span(whole(start), whole(end), form, stream, pick(rng, ["last", "uniform"])), value


def spans(rng: np.random.Generator, case: Case) -> Paid:
    paid = Paid([], [0.0] * len(case.agent), [])
    for _ in range(1 + below(rng, 4)):
        span, value = a_span(rng, case)
        payees = case.holders(span.start, span.end)
        payees = payees if span.split == "uniform" else payees[-1:]
        for token in payees:
            paid.tokens[token] += value / len(payees)
        paid.amounts.append(value)
        paid.item.append(span)
        if span.stream is not None:
            paid.claims.append((span.start, span.end, span.stream))
    return paid


RIGHT = {
    "a number": (with_agent_token, number),
    "a huge number": (with_agent_token, huge_number),
    "an array or tensor": (anywhere, array),
    "a list of numbers": (anywhere, numbers),
    "nothing": (anywhere, nothing),
    "spans": (with_agent_text, spans),
}
RIGHT_CASES = {kind: where(fits) for kind, (fits, _) in RIGHT.items()}


def criteria(rng: np.random.Generator, case: Case, weights: dict[str, float]) -> Paid:
    whole = Paid({}, [0.0] * len(case.agent), [])
    makers = [make for fits, make in RIGHT.values() if fits(case) and make is not huge_number]
    for name in [*weights, *["plain", "", "größer"][: below(rng, 4)]]:
        part, weight = pick(rng, makers)(rng, case), weights.get(name, 1.0)
        whole.item[name] = part.item
        whole.tokens = [total + weight * value for total, value in zip(whole.tokens, part.tokens, strict=True)]
        whole.amounts += [weight * amount for amount in part.amounts]
        whole.claims += part.claims
        whole.criteria[name] = sum(part.amounts)
    whole.item = pick(rng, [dict, OrderedDict, MappingProxyType])(whole.item)
    return whole


# --- batches of right rewards ---------------------------------------------------------------------------------------------


def object_array(items: list[Any]) -> np.ndarray:
    out = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        out[i] = item
    return out


def shown(item: Any) -> str:
    try:
        return repr(item)[:300]
    except Exception:
        return f"a {type(item).__name__} that cannot be shown"


def listed(failures: dict[str, str]) -> str:
    return "\n".join(f"{kind}: {what}" for kind, what in failures.items())


Batch = list[tuple[str, Case, Paid]]


def mixed(rng: np.random.Generator, weights: dict[str, float]) -> tuple[Batch, Any]:
    """A batch of every kind; under ``weights``, of criteria alone."""
    batch: Batch = []
    for _ in range(40):
        if weights or chance(rng, 0.1):
            case = pick(rng, CASES)
            batch.append(("weighted criteria" if weights else "criteria", case, criteria(rng, case, weights)))
        else:
            kind = pick(rng, list(RIGHT))
            case = pick(rng, RIGHT_CASES[kind])
            batch.append((kind, case, RIGHT[kind][1](rng, case)))
    return batch, pick(rng, [list, tuple, deque, object_array])([paid.item for _, _, paid in batch])


def one_array(rng: np.random.Generator) -> tuple[Batch, Any]:
    """One array for the whole batch: of a number for each episode, or of rows for episodes of one length."""
    dtype = pick(rng, DTYPES)
    first = pick(rng, RIGHT_CASES["a number"])
    cases = [first, *(pick(rng, RIGHT_CASES["a number"]) for _ in range(19))]
    if chance(rng, 0.5):
        values = [coarse(rng, dtype) for _ in cases]
        batch = [("one array", case, on_last(case, None, value)) for case, value in zip(cases, values, strict=True)]
        return batch, boxed(values, dtype)
    cases = [case for case in cases if len(case.agent) == len(first.agent)]
    rows = [[coarse(rng, dtype) if agent else 0 for agent in case.agent] for case in cases]
    return [("one array", case, Paid(None, row, row)) for case, row in zip(cases, rows, strict=True)], boxed(rows, dtype)


def streams_of(case: Case, claims: list[tuple[int, int, int]]) -> list[int] | None:
    """-1 where the environment wrote; else the stream of the token's last claimed character, 0 where none is claimed."""
    if not claims:
        return None
    named = {char: stream for start, end, stream in claims for char in range(start, end)}
    streams = []
    for agent, (start, end) in zip(case.agent, case.offsets, strict=True):
        claimed = [named[char] for char in range(start, end) if char in named]
        streams.append(-1 if not agent else claimed[-1] if claimed else 0)
    return streams


def complaint(resolved: Any, case: Case, paid: Paid) -> str:
    """What is wrong with ``resolved``; empty where it is what was asked for."""
    got, gross = resolved.token_rewards.tolist(), sum(map(abs, paid.amounts))
    streams = None if resolved.span_streams is None else resolved.span_streams.tolist()
    if resolved.token_rewards.dtype != np.float32 or not all_close(got, paid.tokens, 1e-6, 1e-9 * gross):
        return f"pays {got}, not {paid.tokens}"
    if not all_close([sum(got)], [sum(paid.amounts)], 1e-5, 1e-6 * gross):
        return f"pays {sum(got)} together, not {sum(paid.amounts)}"
    if streams != streams_of(case, paid.claims):
        return f"has the streams {streams}, not {streams_of(case, paid.claims)}"
    names_agree = list(resolved.criteria) == list(paid.criteria)
    if not names_agree or not all_close(resolved.criteria.values(), paid.criteria.values(), 1e-9, 1e-9 * gross):
        return f"has the criteria {resolved.criteria}, not {paid.criteria}"
    return ""


def all_close(got: Any, wanted: Any, relative: float, absolute: float) -> bool:
    return len(got) == len(wanted) and all(
        math.isclose(a, b, rel_tol=relative, abs_tol=absolute) for a, b in zip(got, wanted, strict=True)
    )


@pytest.mark.filterwarnings("ignore::textgym.rewards.NonCausalSplitWarning")
def test_every_right_reward_is_paid_to_its_tokens_and_its_sum_is_kept():
    rng, met, failures = np.random.default_rng(1), Counter(), {}
    while met.total() < RIGHT_ITEMS:
        weights = {name: pick(rng, [-1.0, 0, 0.1, 2]) for name in ["a", "b"][: pick(rng, [0, 0, 0, 0, 0, 1, 2])]}
        batch, rewards = one_array(rng) if not weights and chance(rng, 0.15) else mixed(rng, weights)
        results = resolve(rewards, [case.episode for _, case, _ in batch], weights)
        for (kind, case, paid), resolved in zip(batch, results, strict=True):
            met[kind] += 1
            what = complaint(resolved, case, paid)
            if what:
                failures.setdefault(kind, f"{shown(paid.item)} in a {type(rewards).__name__} over {case} {what}")
    assert not failures, listed(failures)
    assert set(met) == {*RIGHT, "criteria", "weighted criteria", "one array"}
    assert min(met.values()) >= AT_LEAST, met


# --- wrong rewards --------------------------------------------------------------------------------------------------------


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no repr")


class Weighted(NamedTuple):
    """A wrong reward that is wrong by its weights."""

    item: Any
    weights: dict[str, float]


class Oddity:
    pass


NO_REWARD = [
    *(True, False, np.True_, None, "", "1.0", np.str_("1"), b"1", bytearray(b"11"), memoryview(b"1"), ..., Oddity, Oddity()),
    *(1j, np.complex64(1), Decimal(1), Decimal("NaN"), np.timedelta64(1, "s"), np.datetime64("2020-01-01"), Unshowable()),
    *({1.0}, frozenset(), deque([1.0]), range(3), (x for x in [1.0]), Span(0, 1, 1.0)),
    *(np.array(True), np.array("1"), np.array(1j), np.array(1.0, dtype=object), np.array(None), np.zeros((), "m8[s]")),
    *(np.ma.array(1.0), np.ma.masked, torch.tensor(True), torch.tensor(1j), torch.tensor(1.0, device="meta")),
]
NO_NUMBER = [*NO_REWARD, [1.0], {"a": 1.0}, np.ones(1), torch.ones(1)]
NOT_FINITE = [
    *(math.nan, math.inf, -math.inf, 1e39, -1e300, 10**39, -(10**400), 10**5000, Fraction(10**400), Fraction(10**5000)),
    *(np.float16("nan"), np.float32("inf"), np.float64(1e39), HUGE, np.array(np.nan), np.array(1e39)),
    *(torch.tensor(math.nan), torch.tensor(math.inf, dtype=torch.bfloat16), torch.tensor(1e39, dtype=torch.float64)),
]
VANISHING = [1e-60, -5e-324, TINY, Fraction(1, 10**60), Fraction(1, 10**400), torch.tensor(1e-60, dtype=torch.float64)]
NO_WHOLE = [
    *(0.0, True, np.True_, "0", 1j, math.nan, Fraction(0), np.float64(0), np.timedelta64(0), np.array(0), torch.tensor(0)),
    Unshowable(),
]
BELOW_0 = [-1, -(2**63), -(10**400), -(10**5000)]
NO_STREAM = [*NO_WHOLE, *BELOW_0, 2**31, 2**64, 10**5000]
NO_SPLIT = ["even", "LAST", "", None, 0, b"last", ["last"], np.array(["last", "uniform"]), Unshowable()]


def one_of(options: list[Any]) -> Callable[[np.random.Generator, Case], Any]:
    return lambda rng, case: pick(rng, options)


def array_of_no_numbers(rng: np.random.Generator, case: Case) -> Any:
    count = len(case.agent)
    dtype = pick(rng, [bool, complex, object, "U3", "S3", "M8[s]", "m8[s]", [("a", float)], "masked", torch.bool, torch.cfloat])
    if isinstance(dtype, torch.dtype):
        return torch.ones(count, dtype=dtype)
    return np.ma.ones(count) if dtype == "masked" else np.zeros(count, dtype=dtype)


def array_without_a_row(rng: np.random.Generator, case: Case) -> Any:
    count = len(case.agent)
    shape = pick(rng, [(1, count), (count, 1), (count, count), (1, 1, count)])
    return boxed(np.ones(shape), pick(rng, DTYPES))


def tensor_without_numpy_form(rng: np.random.Generator, case: Case) -> Any:
    ones = torch.ones(len(case.agent))
    return pick(rng, [ones.to_sparse, lambda: ones.to("meta"), lambda: ones.cfloat().conj()])()


def wrong_length(rng: np.random.Generator, case: Case) -> Any:
    count = pick(rng, [n for n in range(1, 15) if n != len(case.agent)])
    return pick(rng, [list, tuple, np.array, torch.tensor])([pick(rng, [0.0, 1.0]) for _ in range(count)])


def empty_array(rng: np.random.Generator, case: Case) -> Any:
    return boxed([], pick(rng, DTYPES))


def numbers_in_no_list(rng: np.random.Generator, case: Case) -> Any:
    container = pick(rng, [lambda values: values, set, frozenset, deque, iter, lambda values: dict.fromkeys(values).keys()])
    return container(range(len(case.agent)))


def with_one(options: list[Any]) -> Callable[[np.random.Generator, Case], Any]:
    """A list of numbers, one of which is replaced by one of ``options``."""

    def make(rng: np.random.Generator, case: Case) -> Any:
        values = list(numbers(rng, case).item)
        values[below(rng, len(values))] = pick(rng, options)
        return pick(rng, [list, tuple])(values)

    return make


def array_with_one_not_finite(rng: np.random.Generator, case: Case) -> Any:
    values = array(rng, case).item
    values = values.astype(np.longdouble) if isinstance(values, np.ndarray) else values.detach().double()
    values[below(rng, len(values))] = pick(rng, [math.nan, math.inf, -math.inf, 1e39, -1e300])
    if isinstance(values, np.ndarray) and chance(rng, 0.5):
        values[below(rng, len(values))] = -HUGE
    return values


def list_with_one_vanishing(rng: np.random.Generator, case: Case) -> Any:
    values: list[Any] = [0] * len(case.agent)
    values[pick(rng, [token for token, agent in enumerate(case.agent) if agent])] = pick(rng, VANISHING)
    return values


def array_with_one_vanishing(rng: np.random.Generator, case: Case) -> Any:
    values = np.zeros(len(case.agent), dtype=np.longdouble)
    values[pick(rng, [token for token, agent in enumerate(case.agent) if agent])] = pick(rng, [1e-60, TINY])
    return values


def ragged(rng: np.random.Generator, case: Case) -> Any:
    rows = [[1.0] * (1 + below(rng, 3)) for _ in case.agent]
    return pick(rng, [list, lambda rows: list(map(np.array, rows)), lambda rows: list(map(torch.tensor, rows))])(rows)


def pays_the_environment(rng: np.random.Generator, case: Case) -> Any:
    dtype = pick(rng, DTYPES)
    values = [coarse(rng, dtype) if agent else 0 for agent in case.agent]
    values[pick(rng, [token for token, agent in enumerate(case.agent) if not agent])] = 1
    return pick(rng, [list, tuple, lambda values: boxed(values, dtype)])(values)


def numbers_and_spans(rng: np.random.Generator, case: Case) -> Any:
    values = [*numbers(rng, case).item, *spans(rng, case).item]
    return values[::-1] if chance(rng, 0.5) else values


def broken(part: str, options: list[Any]) -> Callable[[np.random.Generator, Case], Any]:
    """Right spans, one of which has one of ``options`` as its ``part``."""

    def make(rng: np.random.Generator, case: Case) -> Any:
        items = spans(rng, case).item
        i = below(rng, len(items))
        items[i] = replace(items[i], **{part: pick(rng, options)})
        return items

    return make


def span_without_characters(rng: np.random.Generator, case: Case) -> Any:
    span, _ = a_span(rng, case)
    if chance(rng, 0.3):
        return [replace(span, start=span.end)]
    return [replace(span, start=span.end, end=span.start)]


def span_outside_the_text(rng: np.random.Generator, case: Case) -> Any:
    span, _ = a_span(rng, case)
    end = pick(rng, [len(case.episode.text) + 1, 2**63, 10**400, 10**5000])
    return [replace(span, end=end) if chance(rng, 0.7) else replace(span, start=end, end=end + 1)]


def span_over_no_agent_token(rng: np.random.Generator, case: Case) -> Any:
    start = pick(rng, case.foreign)
    end = start + 1
    while end in case.foreign and chance(rng, 0.8):
        end += 1
    return [Span(start, end, a_number(rng)[0])]


def vanishing_span(rng: np.random.Generator, case: Case) -> Any:
    return [replace(a_span(rng, case)[0], reward=pick(rng, VANISHING))]


def two_streams(rng: np.random.Generator, case: Case) -> Any:
    some = replace(a_span(rng, case)[0], stream=pick(rng, [1, 2**31 - 1]))
    all_text = Span(0, len(case.episode.text), 0.0, stream=0)
    return pick(rng, [[some, all_text], [all_text, some], {"a": [some], "neither": [], "b": [all_text]}])


def too_much_together(rng: np.random.Generator, case: Case) -> Any:
    span = replace(a_span(rng, case)[0], reward=pick(rng, [FLOAT32_MAX, -3e38]), split="last")
    return [span, span] if chance(rng, 0.5) else {"a": [span], "b": [span]}


def weighted_too_much(rng: np.random.Generator, case: Case) -> Weighted:
    weight = pick(rng, [math.nan, math.inf, -math.inf, 1e39, -1e300, 10**400])
    return Weighted({"a": pick(rng, [1, -3e38]), "b": number(rng, case).item}, {"a": weight})


def too_much_before_its_weight(rng: np.random.Generator, case: Case) -> Weighted:
    too_much = pick(rng, [1e39, -(10**39), np.float64(1e300)])
    part = pick(rng, [too_much, np.full(len(case.agent), too_much), [replace(a_span(rng, case)[0], reward=too_much)]])
    return Weighted({"a": part}, {"a": pick(rng, [0, 1e-30])})


def weighted_to_nothing(rng: np.random.Generator, case: Case) -> Weighted:
    return Weighted({"a": pick(rng, [1e-30, 1e-200])}, {"a": pick(rng, [1e-30, -1e-200])})


def unknown_weight(rng: np.random.Generator, case: Case) -> Weighted:
    named = criteria(rng, case, {"a": 1.0}).item
    return Weighted(named, {"a": 0.5, pick(rng, ["A", "b", "größer "]): pick(rng, [0, 1.0])})


def wrong_name(rng: np.random.Generator, case: Case) -> Any:
    name = pick(rng, [0, None, b"a", ("a",), True, 1.5, 10**5000, Unshowable()])
    return {"a": nothing(rng, case).item, name: numbers(rng, case).item}


def nested_criteria(rng: np.random.Generator, case: Case) -> Any:
    inner = pick(rng, [{}, MappingProxyType({}), criteria(rng, case, {"b": 1.0}).item])
    return {"a": pick(rng, [inner, [inner], [inner] * len(case.agent) or [inner]])}


WRONG = {
    "no reward at all": (anywhere, one_of(NO_REWARD)),
    "a number that is not finite": (anywhere, one_of(NOT_FINITE)),
    "a number that would vanish": (with_agent_token, one_of(VANISHING)),
    "a number where the agent wrote nothing": (without_agent_token, lambda rng, case: a_number(rng)[0]),
    "an array of no numbers": (anywhere, array_of_no_numbers),
    "an array that is no row": (anywhere, array_without_a_row),
    "a tensor without a numpy form": (anywhere, tensor_without_numpy_form),
    "the wrong length": (anywhere, wrong_length),
    "an empty array": (with_tokens, empty_array),
    "an array with one not finite": (with_tokens, array_with_one_not_finite),
    "an array with one that would vanish": (with_agent_token, array_with_one_vanishing),
    "a list with one not finite": (with_tokens, with_one(NOT_FINITE)),
    "a list with one that would vanish": (with_agent_token, list_with_one_vanishing),
    "a list with one that is no number": (with_tokens, with_one(NO_NUMBER)),
    "numbers in what is no list": (with_tokens, numbers_in_no_list),
    "a ragged list": (with_tokens, ragged),
    "a reward for the environment": (with_environment_token, pays_the_environment),
    "numbers and spans in one list": (with_agent_text, numbers_and_spans),
    "a span whose start is not whole": (with_agent_text, broken("start", [None, *NO_WHOLE])),
    "a span whose end is not whole": (with_agent_text, broken("end", [None, *NO_WHOLE])),
    "a span that starts before the text": (with_agent_text, broken("start", BELOW_0)),
    "a span that ends after the text": (with_agent_text, span_outside_the_text),
    "a span without characters": (with_agent_text, span_without_characters),
    "a span over no agent token": (with_foreign_text, span_over_no_agent_token),
    "a span whose reward is no number": (with_agent_text, broken("reward", NO_NUMBER)),
    "a span whose reward is not finite": (with_agent_text, broken("reward", NOT_FINITE)),
    "a span whose stream is no stream": (with_agent_text, broken("stream", NO_STREAM)),
    "a span whose reward would vanish": (with_agent_text, vanishing_span),
    "a span whose split is no split": (with_agent_text, broken("split", NO_SPLIT)),
    "a character in two streams": (with_agent_text, two_streams),
    "more than float32 together": (with_agent_text, too_much_together),
    "more than float32 by weight": (with_agent_token, weighted_too_much),
    "more than float32 before its weight": (with_agent_text, too_much_before_its_weight),
    "less than float32 by weight": (with_agent_token, weighted_to_nothing),
    "an unknown weight": (anywhere, unknown_weight),
    "a criterion whose name is no string": (anywhere, wrong_name),
    "criteria inside criteria": (anywhere, nested_criteria),
}
WRONG_CASES = {kind: where(fits) for kind, (fits, _) in WRONG.items()}


def fault(rewards: Any, episodes: list[Episode], named: str, weights: dict[str, float] | None = None) -> str:
    """What ``resolve`` made of wrong rewards; empty where it is a ValueError that says ``named``, a regular expression."""
    try:
        results = resolve(rewards, episodes, weights)
    except ValueError as error:
        return "" if re.search(named, str(error)) else f"a ValueError without the name: {error}"
    except Exception as error:  # whatever else it is, it is a defect
        return f"{type(error).__name__}: {error}"
    return f"paid: {[result.token_rewards.tolist() for result in results]}"


@pytest.mark.filterwarnings("ignore::textgym.rewards.NonCausalSplitWarning")
def test_every_wrong_reward_is_refused_by_the_name_of_its_episode():
    rng, met, failures = np.random.default_rng(2), Counter(), {}
    while met.total() < WRONG_ITEMS:
        kind = pick(rng, list(WRONG))
        case, neighbour = pick(rng, WRONG_CASES[kind]), pick(rng, CASES)
        if case is neighbour:
            continue
        met[kind] += 1
        item, name = WRONG[kind][1](rng, case), rf"\bepisode {case.episode.episode_id}\b"
        if isinstance(item, Weighted):
            what = fault([item.item], [case.episode], name, item.weights)
        else:
            item = {"right": [], "wrong": item} if chance(rng, 0.2) else item
            what = fault([[], item], [neighbour.episode, case.episode], name)
        if what:
            failures.setdefault(f"{kind}, {what.partition(':')[0]}", f"{shown(item)} over {case}: {what}")
    assert not failures, listed(failures)
    assert set(met) == set(WRONG)
    assert min(met.values()) >= AT_LEAST, met


# --- batches that are not one reward per episode --------------------------------------------------------------------------


class Column:
    """A column of a table: it has a shape and a length, but ``[i]`` asks for the label i, wherever it stands."""

    shape = (2,)

    def __len__(self):
        return 2

    def __getitem__(self, label):
        return {1: 1.0, 0: 2.0}[label]


def test_a_batch_of_the_wrong_length_is_refused_with_both_counts():
    rng, failures = np.random.default_rng(3), {}
    for _ in range(1_000):
        episodes = [pick(rng, CASES).episode for _ in range(below(rng, 6))]
        given = pick(rng, [count for count in range(8) if count != len(episodes)])
        batch = pick(rng, [list, tuple, deque, object_array, np.array, torch.tensor, np.diag])([1.0] * given)
        what = fault(batch, episodes, rf"\b{given}\b.*\b{len(episodes)}\b")
        if what:
            failures.setdefault(type(batch).__name__, what)
    assert not failures, listed(failures)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_batch_that_is_no_sequence_is_refused_with_the_count_of_episodes():
    rng, failures = np.random.default_rng(4), {}
    rows = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    batches = [None, 1.0, "ab", b"ab", bytearray(2), {0: 1.0, 1: 1.0}, {1.0, 2.0}, (x for x in [1.0, 2.0]), np.array(1.0)]
    batches += [
        torch.tensor(1.0),
        Span(0, 1, 1.0),
        {"a": 1.0, "b": 1.0}.values(),
        memoryview(b"ab"),
        Unshowable(),
        rows,
        Column(),
    ]
    for _ in range(1_000):
        batch = pick(rng, batches)
        what = fault(batch, [pick(rng, CASES).episode, pick(rng, CASES).episode], r"\b2 episodes\b")
        if what:
            failures.setdefault(type(batch).__name__, what)
    assert not failures, listed(failures)
