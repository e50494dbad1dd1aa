import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import build_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym import Span, resolve
from textgym import rewards as rewards_module
from textgym.rewards import NonCausalSplitWarning


def tokens(reward, episode=None, weights=None):
    episode = episode or build_episode()
    (resolved,) = resolve([reward], [episode], weights)
    return resolved.token_rewards.tolist()


# --- what each type means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0), torch.tensor(1), Fraction(1)]
)
def test_a_real_number_of_any_kind_is_paid_on_the_last_agent_token_F01(number):
    assert tokens(number) == [0, 0, 0, 0, 1]


def test_a_scalar_lands_on_the_last_token_of_each_length_F01():
    short, long = build_episode("abc"), build_episode("abcde")
    first, second = resolve([1.0, 1.0], [short, long])
    assert first.token_rewards.tolist() == [0, 0, 1]
    assert second.token_rewards.tolist() == [0, 0, 0, 0, 1]


def test_a_scalar_skips_what_the_environment_wrote():
    assert tokens(2.0, build_episode("abc", agent_mask=[True, True, False])) == [0, 2, 0]


@pytest.mark.parametrize(
    "values",
    [
        [1, 0, 0, 0, 2.5],
        (1, 0, 0, 0, 2.5),
        np.array([1, 0, 0, 0, 2.5]),
        torch.tensor([1, 0, 0, 0, 2.5]),
        torch.tensor([1, 0, 0, 0, 2.5], dtype=torch.bfloat16),
        torch.tensor([1, 0, 0, 0, 2.5], requires_grad=True),
        [np.float64(1), 0, torch.tensor(0.0), 0, np.array(2.5)],
    ],
)
def test_numbers_per_token_stay_where_they_are(values):
    assert tokens(values) == [1, 0, 0, 0, 2.5]


def test_a_list_of_length_one_is_one_token_not_a_scalar_F16():
    assert tokens([3.0], build_episode("a")) == [3]
    with pytest.raises(ValueError, match="episode 7 has 1 values but its response has 5 tokens"):
        tokens([3.0])
    short, long = build_episode("a"), build_episode("ab")
    first, second = resolve([[3.0], 3.0], [short, long])  # a mixed batch: the type decides, for each item
    assert first.token_rewards.tolist() == [3]
    assert second.token_rewards.tolist() == [0, 3]


def test_a_span_pays_its_last_overlapping_agent_token():
    assert tokens([Span(0, 2, 1.0)]) == [0, 1, 0, 0, 0]
    assert tokens([Span(0, 3, 1.0)], build_episode("abcd", [(0, 2), (2, 4)])) == [0, 1]
    assert tokens([Span(0, 3, 1.0)], build_episode("abc", agent_mask=[True, True, False])) == [0, 1, 0]


def test_a_span_split_uniformly_warns_that_it_is_not_causal_F36():
    with pytest.warns(NonCausalSplitWarning, match="reward-to-go"):
        assert tokens([Span(0, 2, 1.0, split="uniform")]) == [0.5, 0.5, 0, 0, 0]


def test_a_span_with_reward_0_keeps_its_stream_F20():
    (resolved,) = resolve([[Span(0, 2, 0.0, stream=3), Span(2, 5, 1.0, stream=4)]], [build_episode()])
    assert resolved.span_streams is not None
    assert resolved.span_streams.tolist() == [3, 3, 4, 4, 4]


def test_spans_that_overlap_add_up():
    assert tokens([Span(0, 5, 1.0), Span(3, 5, 2.0)]) == [0, 0, 0, 0, 3]


def test_no_span_is_no_reward():
    assert tokens([]) == [0] * 5


def test_criteria_are_weighted_and_reported_before_weighting():
    (resolved,) = resolve([{"a": 1.0, "b": [1, 0, 0, 0, 1], "c": [Span(0, 1, 2.0)]}], [build_episode()], {"b": 0.5})
    assert resolved.token_rewards.tolist() == [2.5, 0, 0, 0, 1.5]
    assert resolved.criteria == {"a": 1.0, "b": 2.0, "c": 2.0}


def test_empty_response_is_rewarded_with_nothing_and_nothing_else_F18():
    empty = build_episode("")
    assert tokens([], empty) == []
    with pytest.raises(ValueError, match="no token to pay it on"):
        tokens(1.0, empty)


# --- what is refused ------------------------------------------------------------------------------------------------------

WRONG = {
    "bool": True,
    "numpy bool": np.True_,
    "0-d bool tensor": torch.tensor(True),
    "str": "1.0",
    "bytes": b"1",
    "None": None,
    "complex": 1j,
    "complex array": np.array([1j] * 5),
    "Decimal": Decimal("1"),
    "nan": math.nan,
    "inf": math.inf,
    "overflow": 1e39,
    "huge int": 10**400,
    "nan in list": [0, 0, math.nan, 0, 0],
    "inf in array": np.array([0, 0, -np.inf, 0, 0]),
    "overflow in array": np.full(5, 1e39),
    "too long": [0.0] * 6,
    "too short": np.zeros(4),
    "empty array": np.zeros(0),
    "2-d": np.zeros((1, 5)),
    "2-d tensor": torch.zeros(5, 1),
    "bool array": np.ones(5, dtype=bool),
    "list of bool": [True] * 5,
    "text array": np.array(["1"] * 5),
    "object array": np.array([1.0] * 5, dtype=object),
    "list of str": ["1"] * 5,
    "nested list": [[1.0]] * 5,
    "mixed list": [1.0, Span(0, 1, 1.0)],
    "bare span": Span(0, 1, 1.0),
    "set": {1.0},
    "generator": (x for x in [1.0]),
    "nested mapping": {"a": {"b": 1.0}},
    "mapping with a number as name": {1: 1.0},
    "mapping with a wrong item": {"a": "1"},
    "start == end": [Span(1, 1, 1.0)],
    "start > end": [Span(2, 1, 1.0)],
    "negative start": [Span(-1, 1, 1.0)],
    "outside the text": [Span(0, 6, 1.0)],
    "float edge": [Span(0.0, 1, 1.0)],
    "bool edge": [Span(False, True, 1.0)],
    "span with nan": [Span(0, 1, math.nan)],
    "span with str": [Span(0, 1, "1")],
    "span with bool": [Span(0, 1, True)],
    "span with array": [Span(0, 1, np.zeros(2))],
    "negative stream": [Span(0, 1, 1.0, stream=-1)],
    "stream that is no int": [Span(0, 1, 1.0, stream="a")],
    "bool stream": [Span(0, 1, 1.0, stream=True)],
    "unknown split": [Span(0, 1, 1.0, split="even")],
    "two streams over one character": [Span(0, 2, 1.0, stream=0), Span(1, 3, 1.0, stream=1)],
    "criteria that disagree": {"a": [Span(0, 2, 1.0, stream=0)], "b": [Span(1, 3, 1.0, stream=1)]},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_every_wrong_reward_names_the_episode_and_what_is_allowed_F17(wrong):
    with pytest.raises(ValueError, match=r"reward for episode 7 .*;") as error:
        resolve([0.0, wrong], [build_episode(episode_id=6), build_episode(episode_id=7)])
    assert len(str(error.value)) < 1500


def test_reward_on_a_token_of_the_environment_is_refused():
    episode = build_episode("abc", agent_mask=[True, False, True])
    with pytest.raises(ValueError, match="token 1, which the environment wrote"):
        tokens([0, 1.0, 0], episode)
    with pytest.raises(ValueError, match="over no token of the agent"):
        tokens([Span(1, 2, 1.0)], episode)


def test_span_over_a_special_token_alone_cannot_be_written():
    with pytest.raises(ValueError, match="0 <= start < end"):
        tokens([Span(5, 5, 1.0)])


@pytest.mark.parametrize("count", [1, 3])
def test_wrong_number_of_rewards_is_refused_F17(count):
    with pytest.raises(ValueError, match=f"returned {count} rewards for 2 episodes"):
        resolve([1.0] * count, [build_episode(), build_episode()])


@pytest.mark.parametrize("rewards", [1.0, None, "ab", {0: 1.0, 1: 2.0}, (x for x in [1.0, 2.0]), np.array(1.0)])
def test_rewards_that_are_no_sequence_are_refused(rewards):
    with pytest.raises(ValueError, match="return a sequence with one reward per episode"):
        resolve(rewards, [build_episode(), build_episode()])


def test_a_batch_as_one_array_or_tensor_is_one_number_per_episode():
    for batch in (np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])):
        first, second = resolve(batch, [build_episode("a"), build_episode("ab")])
        assert first.token_rewards.tolist() == [1]
        assert second.token_rewards.tolist() == [0, 2]


def test_unknown_weight_is_refused():
    with pytest.raises(ValueError, match="weights names 'c'"):
        tokens({"a": 1.0}, weights={"c": 2.0})


def test_weighted_overflow_is_refused():
    with pytest.raises(ValueError, match="float32"):
        tokens({"a": 3e38}, weights={"a": 10.0})


# --- streams --------------------------------------------------------------------------------------------------------------


def test_a_token_in_two_streams_belongs_to_that_of_its_last_character():
    episode = build_episode("abcd", [(0, 1), (1, 3), (3, 4), (4, 4)])
    (resolved,) = resolve([[Span(0, 2, 1.0, stream=1), Span(2, 4, 1.0, stream=2)]], [episode])
    assert resolved.span_streams is not None
    assert resolved.span_streams.tolist() == [1, 2, 2, 0]  # end-of-text holds no character: stream 0


def test_the_token_that_a_span_pays_is_of_the_spans_stream_even_if_the_token_goes_on():
    episode = build_episode("ab.", [(0, 1), (1, 3)])
    (resolved,) = resolve([[Span(0, 2, 1.0, stream=5)]], [episode])
    assert resolved.span_streams is not None
    assert resolved.span_streams.tolist() == [5, 5]
    assert resolved.token_rewards.tolist() == [0, 1]


def test_streams_are_minus_one_where_the_environment_wrote():
    episode = build_episode("abc", agent_mask=[True, False, True])
    (resolved,) = resolve([[Span(0, 3, 1.0, stream=2)]], [episode])
    assert resolved.span_streams is not None
    assert resolved.span_streams.tolist() == [2, -1, 2]


# --- properties -----------------------------------------------------------------------------------------------------------

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@st.composite
def rewarded_episodes(draw):
    count = draw(st.integers(1, 12))
    widths = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    ends = np.cumsum(widths)
    mask = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    episode = build_episode("x" * int(ends[-1]), list(zip(ends - widths, ends, strict=True)), mask)
    spans = []
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, max(0, len(episode.text) - 1)))
        end = draw(st.integers(start + 1, max(start + 1, len(episode.text))))
        spans.append(Span(start, end, draw(numbers), split=draw(st.sampled_from(["last", "uniform"]))))
    dense = [draw(numbers) if agent else 0.0 for agent in mask]
    return episode, draw(st.sampled_from([spans, dense, draw(numbers), {"a": spans, "b": dense}]))


@settings(max_examples=300)
@given(case=rewarded_episodes())
def test_the_sum_is_conserved_or_the_episode_is_named(case):
    episode, reward = case
    asked = _total(reward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonCausalSplitWarning)
        try:
            (resolved,) = resolve([reward], [episode])
        except ValueError as error:
            assert "episode 7" in str(error)  # noqa: PT017
            return
    assert resolved.token_rewards.dtype == np.float32
    size = max(1.0, float(np.abs(resolved.token_rewards).sum()))
    assert math.isclose(float(resolved.token_rewards.sum(dtype=np.float64)), asked, abs_tol=1e-5 * size)
    assert not resolved.token_rewards[~episode.agent_mask].any()


def _total(reward) -> float:
    if isinstance(reward, dict):
        return sum(_total(part) for part in reward.values())
    if isinstance(reward, list):
        return sum(item.reward if isinstance(item, Span) else item for item in reward)
    return reward


def test_uniform_split_teaches_length_and_last_token_does_not_F36():
    """Exact gradient of "one more token or stop" for a span of 1 or 2 tokens and a reward of +1 or -1, reward-to-go.

    Token 1 always continues into the reward; the decision is whether a second token of the span follows. With the reward on
    the last token both choices see the same return, so the gradient is 0; spread uniformly, the token after the decision
    sees 1/2 of it if the span is long, and nothing of it if the span stops.
    """

    def decision_return(reward: float, split: str, long: bool) -> float:
        episode = build_episode("ab." if long else "a.")  # "." closes the span and is the token that stops
        span = Span(0, len(episode.text), reward, split=split)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NonCausalSplitWarning)
            (resolved,) = resolve([[span]], [episode])
        return float(resolved.token_rewards[1:].sum())  # reward-to-go of the second token: "b" (go on) or "." (stop)

    for reward in (1.0, -1.0):
        # d/d(logit of going on) of the expected reward-to-go at probability 1/2 is (Q(go on) - Q(stop)) / 4.
        gradient = {
            split: (decision_return(reward, split, True) - decision_return(reward, split, False)) / 4
            for split in ("uniform", "last")
        }
        assert gradient["last"] == 0
        assert gradient["uniform"] == pytest.approx(reward * (2 / 3 - 1 / 2) / 4)  # +-.0417: longer if good, shorter if bad


class Unshowable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "wrong",
    [
        np.ma.array([math.nan] * 5, mask=[True] * 5),
        np.ma.array(1.0, mask=True),
        np.timedelta64(5, "s"),
        [np.timedelta64(5, "s")] * 5,
        torch.eye(5).to_sparse()[0],
        torch.empty(5, device="meta"),
        Unshowable(),
        1e-60,
        [1e-60] * 5,
        bytearray(b"abcde"),
        [Span(np.timedelta64(0), 1, 1.0)],
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_odd_objects_are_refused_like_any_other_wrong_reward(wrong):
    with pytest.raises(ValueError, match="reward for episode 7"):
        tokens(wrong)


def test_a_batch_of_bytes_is_no_sequence_of_rewards():
    with pytest.raises(ValueError, match="return a sequence"):
        resolve(bytearray(b"a"), [build_episode()])


def outcome(reward, episode):
    """What a reward comes to, down to the bits; or its error."""
    try:
        (resolved,) = resolve([reward], [episode], {"a": 2.0} if isinstance(reward, dict) else None)
    except ValueError as error:
        return str(error)
    paid = resolved.token_rewards
    ledger = (resolved.ledger.asked.hex(), type(resolved.ledger.asked), dict(resolved.ledger.accounts))
    return paid.dtype, paid.tobytes(), resolved.span_streams, dict(resolved.criteria), ledger


@settings(max_examples=300)
@given(
    number=st.floats()
    | st.integers()
    | st.sampled_from([10**400, -(10**39), 1e-46, -7e-46, 3.4028235e38, 3.4028236e38, 0, -0.0]),
    kind=st.sampled_from([lambda number: number, np.float64]),
    mask=st.lists(st.booleans(), max_size=5),
)
def test_a_plain_number_comes_to_what_any_other_real_number_comes_to(number, kind, mask):
    try:
        reward = kind(number)
    except OverflowError:
        return
    episode = build_episode("abcde"[: len(mask)], agent_mask=mask)
    quick = outcome(reward, episode)
    plain, rewards_module._PLAIN = rewards_module._PLAIN, frozenset()
    try:
        assert outcome(reward, episode) == quick
    finally:
        rewards_module._PLAIN = plain


def test_a_flag_is_no_plain_number():
    with pytest.raises(ValueError, match="is True, a bool"):
        tokens(True)
