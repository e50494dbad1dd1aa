import warnings

import pytest
import torch
from agent_kit import build_rollout
from textgym_agents.constant_total import ConstantTotalWarning, assigner_of, warn_constant_total, warn_credit

import textgym
from textgym.credit import KeepLast, Last, NonCausalCreditWarning, Uniform, UnpaidStreamsWarning


def collection(rewards, streams=None):
    rewards = torch.tensor(rewards)
    mask = torch.ones_like(rewards, dtype=torch.bool)
    streams = torch.zeros_like(rewards, dtype=torch.int64) if streams is None else torch.tensor([streams] * len(rewards))
    return build_rollout(token_rewards=rewards, agent_mask=mask, streams=streams, ids=torch.zeros(len(rewards), 4))


def test_a_constant_total_in_one_stream_is_warned_about_F07():
    with pytest.warns(ConstantTotalWarning, match=r"earns 0 in total.*Choose streams"):
        warn_constant_total(collection([[1.0, -1.0], [-1.0, 1.0]]))
    with pytest.warns(ConstantTotalWarning, match="earns 1 in total"):
        warn_constant_total(collection([[0.3, 0.7], [0.1, 0.9], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("rewards", "streams"),
    [
        ([[1.0, -1.0], [-1.0, 1.0]], [0, 1]),
        ([[1.0, -1.0], [1.0, 1.0]], None),
        ([[0.3, 0.7], [0.3, 0.7]], None),
        ([[0.0, 1.0], [1.0, 0.0]], None),
        ([[0.0, 0.0], [0.0, 0.0]], None),
        ([[1.0, -1.0]], None),
    ],
    ids=["streams", "it varies", "always alike", "one reward each", "nothing", "one text"],
)
def test_what_is_no_such_case_is_not(rewards, streams):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_constant_total(collection(rewards, streams))


def test_the_assigner_is_found_on_the_environment():
    assert assigner_of(textgym.TextGenVectorEnv(1, assigner="uniform")) == Uniform()
    assert assigner_of(textgym.TextGenVectorEnv(1)) is None


HALF = KeepLast(Uniform(), 0.5)


@pytest.mark.parametrize(
    ("assigner", "rewards", "streams", "warned"),
    [
        (Uniform(), [[1.0, 1.0, 1.0]] * 2, [0, 0, 0], NonCausalCreditWarning),
        (HALF, [[1.0, 1.0, 4.0]] * 2, [0, 0, 0], None),
        (HALF, [[1.0, 1.0, 4.0]] * 2, [0, 0, 1], NonCausalCreditWarning),
        (Uniform(), [[0.0, 1.0, 1.0]] * 2, [0, 0, 1], None),  # each stream is paid at its end
        (Last(), [[0.0, 0.0, 3.0]] * 2, [0, 0, 0], None),
        (Last(), [[0.0, 0.0, 3.0]] * 2, [0, 0, 1], UnpaidStreamsWarning),
        (None, [[1.0, 1.0, 1.0]] * 2, [0, 0, 1], None),
    ],
)
def test_credit_is_warned_about_by_where_it_stands_in_its_stream(assigner, rewards, streams, warned):
    """Whole-stream returns see whatever is booked in the stream, but no stream sees what is paid in another."""
    for reward_to_go in (True, False):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warn_credit(assigner, collection(rewards, streams), reward_to_go=reward_to_go)
        expected = warned if reward_to_go or warned is UnpaidStreamsWarning else None
        assert [each.category for each in said] == ([expected] if expected else [])


def test_texts_of_one_stream_each_are_no_texts_of_several():
    rollout = collection([[0.0, 0.0], [0.0, 3.0]])
    rollout.streams[1] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_credit(Last(), rollout, reward_to_go=True)
