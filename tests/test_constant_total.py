import warnings

import pytest
import torch
from agent_kit import build_rollout
from textgym_agents.constant_total import ConstantTotalWarning, assigner_of, warn_constant_total, warn_credit
from torch.nn.utils.rnn import pad_sequence

import textgym
from textgym import RewardForm
from textgym.credit import KeepLast, Last, NonCausalCreditWarning, Uniform, UnpaidStreamsWarning
from textgym.probes import play_demonstrations, play_random
from textgym.rules import Rules
from textgym.task import resolve_task


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
    with pytest.warns(ConstantTotalWarning, match="every text of the collection earns 0 in total"):
        warn_constant_total(collection([[0.0, 0.0], [0.0, 0.0], [1.0, -1.0], [-1.0, 1.0]]))  # two ties


def test_a_few_texts_that_break_the_form_do_not_hide_a_constant_total_F07():
    texts = [[1.0, 0.0, -1.0, 0.0], [-1.0, 0.0, 1.0, 0.0]] * 9 + [[0.0, 0.0, -2.0, 0.0]] * 2
    with pytest.warns(ConstantTotalWarning, match="90% of the texts of the collection earn 0 in total"):
        warn_constant_total(collection(texts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_constant_total(collection([*texts, texts[-1]]))  # 18 of 21


def test_a_winner_who_takes_all_is_a_constant_total_F07():
    """Masses (1, 0): one reward per text, of whoever won; a tie or a broken form is paid otherwise."""
    first, second = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    with pytest.warns(ConstantTotalWarning, match="every text of the collection earns 1 in total"):
        warn_constant_total(collection([first, second]))
    with pytest.warns(ConstantTotalWarning, match="95% of the texts"):
        warn_constant_total(collection([first, second, second] * 6 + [first, [-1.0, 0, 0, 0, 0, 0]]))


LAST, BEFORE_EOS = [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("rewards", "streams"),
    [
        ([[1.0, -1.0], [-1.0, 1.0]], [0, 1]),
        ([[1.0, -1.0], [1.0, 1.0]], None),
        ([[0.3, 0.7], [0.3, 0.7]], None),
        ([[0.0, 0.0], [0.0, 0.0]], None),
        ([[0.0, 0.0], [0.0, 0.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], None),
        ([[1.0, -1.0]], None),
        ([LAST, BEFORE_EOS], None),
        ([[0.0, 1.0, 0.0, 0.0], LAST] + [[0.0] * 4] * 2, None),
        ([[0.0, -1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0, 0.0]], None),
        ([[0.0, 1.0, 0.0, 0.0, 0.0]] * 2, None),
    ],
    ids=[
        "streams",
        "it varies",
        "always alike",
        "nothing",
        "most earn nothing",
        "one text",
        "at the end, or at the last character",
        "a sparse success",
        "a penalty for the first mistake",
        "always at the same place",
    ],
)
def test_what_is_no_such_case_is_not(rewards, streams):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_constant_total(collection(rewards, streams))


def test_one_reward_at_the_end_of_texts_of_several_lengths_or_at_their_same_place_is_not():
    rewards = torch.eye(6)[[1, 2, 3, 4, 5]]  # the last token of texts of 2 to 6 tokens
    rollout = collection(rewards.tolist())
    rollout.agent_mask[:] = torch.arange(6) <= torch.arange(1, 6)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_constant_total(rollout)
        rollout.token_rewards[:] = torch.eye(6)[1]  # the second token of each of them
        warn_constant_total(rollout)


PLAYED = {
    "number_duel": True,
    "three_sentences": True,
    "probe_duel": True,
    "probe_pennies": True,
    "brackets": True,  # its demonstrations are solutions of several lengths, which share 1 out
    "chained_arithmetic": False,
    "copying": False,
    "guess_number": False,
    "json_record": False,
    "probe_joint": False,
    "random_walks": False,
    "turn_duel": False,
}
"""Shipped tasks in one stream, as their demonstrations play them, and whether what these share out is a constant mass."""


@pytest.mark.parametrize("name", PLAYED)
def test_of_the_shipped_tasks_those_with_a_constant_mass_are_warned_about_and_no_others(name):
    rules = Rules(RewardForm(resolve_task(name), streams=False))
    demonstrated = [sampled.episode for sampled in play_demonstrations(rules, 0, 57)]
    random = [sampled.episode for sampled in play_random(rules, 57, 0)]
    for episodes, warned in ((demonstrated + random[:3], PLAYED[name]), (random, PLAYED[name] and "probe" in name)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warn_constant_total(released(rules, episodes))
        assert [each.category for each in said] == [ConstantTotalWarning] * warned


def released(rules, episodes):
    releases = rules.release(episodes, [0] * len(episodes))
    tables = {
        name: pad_sequence([torch.tensor(getattr(each, name)) for each in releases], batch_first=True)
        for name in ("token_rewards", "agent_mask", "streams")
    }
    return build_rollout(**tables, ids=torch.zeros(len(releases), 4))


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
