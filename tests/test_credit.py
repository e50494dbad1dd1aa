"""What must hold of every assigner: a new one is tested here the moment that it is written (``credit_kit.assigners``)."""

import copy
import pickle

import numpy as np
import pytest
from conftest import build_episode
from credit_kit import assigners, random_episode, random_scores, worst_gap

from textgym import PromptTask, TextGenEnv, TextGenVectorEnv, TextTokenizer, release, releases
from textgym.checks import CheckError, check_assigner, check_task
from textgym.credit import ASSIGNERS, Assigner
from textgym.credit import __all__ as exported

ALL = assigners()


@pytest.fixture(params=ALL)
def assigner(request):
    return ALL[request.param]


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [random_episode(rng, number) for number in range(count)], random_scores(rng, count)


def test_all_of_them_are_found_and_exported():
    assert {name.partition("-")[0] for name in ALL} >= {kind.__name__ for kind in ASSIGNERS.values()}
    assert {name.partition("-")[0] for name in ALL} | {"Assigner"} <= {*exported}
    assert len(ALL) >= 15


def test_it_is_what_it_declares(assigner):
    assert isinstance(assigner, Assigner)
    check_assigner(assigner, texts=["abc", "a", "ab cd. e"])


def test_it_is_what_it_declares_over_bytes_that_share_characters(request, assigner, byte_bpe):
    """But for one thing: a later byte decides whether a character was done, so where its tokens are paid is not causal."""
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    if request.node.callspec.params["assigner"] not in ("PrefixDifference", "MonteCarlo"):
        check_assigner(assigner, tokenizer, texts=["🦊", "a🦊", "é"], episodes=8)
        return
    with pytest.raises(CheckError) as error:
        check_assigner(assigner, tokenizer, texts=["🦊", "a🦊", "é"], episodes=8)
    assert error.value.names == ["causality"]


def test_the_sum_is_kept_in_float32(assigner):
    """``tests/long/credit_conservation.py`` does this over 100,000 episodes."""
    episodes, scores = texts(100)
    assert assigner.conserves
    assert worst_gap(assigner, episodes, scores) <= 1e-6


def test_the_environments_tokens_are_never_paid(assigner):
    episodes, scores = texts(100, seed=1)
    for paid, episode in zip(assigner(scores, episodes), episodes, strict=True):
        assert np.shape(paid) == (len(episode.ids),)
        assert not np.asarray(paid)[~episode.agent_mask].any()


def test_neither_the_batchs_order_nor_its_size_changes_what_is_paid(assigner):
    episodes, scores = texts(40, seed=2)
    together = assigner(scores, episodes)
    order = np.random.default_rng(0).permutation(40)
    shuffled = assigner([scores[i] for i in order], [episodes[i] for i in order])
    for place, i in enumerate(order):
        (alone,) = assigner([scores[i]], [episodes[i]])
        np.testing.assert_array_equal(together[i], alone)
        np.testing.assert_array_equal(together[i], shuffled[place])
    assert list(assigner([], [])) == []


def test_padding_changes_nothing_and_both_doors_pay_the_same(assigner, letters):
    """Rooms of 8 and of 40 tokens; eos ends the texts before either."""

    def task(room):
        return PromptTask(["a"], letters, lambda e: [len(x.text) - 1.5 for x in e], max_new_tokens=room, assigner=assigner)

    actions = [*letters.encode("ab c."), letters.eos_token_id]
    paid = []
    for room in (8, 40):
        env, envs = TextGenEnv(task(room)), TextGenVectorEnv(2, task(room))
        env.reset(seed=0)
        envs.reset(seed=0)
        info, infos = {}, {}
        for action in actions:
            *_, info = env.step(int(action))
            *_, infos = envs.step(np.array([action, action]))
        paid += [release(info), *releases(infos)]
    for other in paid:
        assert other.token_rewards.tolist() == paid[0].token_rewards.tolist()
        assert float(other.token_rewards.sum()) == pytest.approx(3.5)
        assert (other.ledger.asked, dict(other.ledger.accounts)) == (3.5, {})


def test_a_task_that_has_it_passes_all_checks(assigner, letters):
    check_task(PromptTask(["a"], letters, lambda e: [float(len(x.text)) for x in e], max_new_tokens=5, assigner=assigner))


def test_one_token_gets_all_of_it(assigner):
    assert list(assigner([2.5], [build_episode("a")])[0]) == [2.5]


def test_copies_pay_the_same_and_copies_of_arguments_count_together(assigner):
    episodes, scores = texts(3)
    copied, sent = copy.deepcopy(assigner), pickle.loads(pickle.dumps(assigner))  # noqa: S301 (own object)
    before = assigner.reward_calls
    for mine, theirs, far in zip(assigner(scores, episodes), copied(scores, episodes), sent(scores, episodes), strict=True):
        assert mine.tolist() == theirs.tolist() == far.tolist()
    assert assigner.reward_calls == copied.reward_calls
    assert (assigner.reward_calls > before) == (sent.reward_calls > 0)
