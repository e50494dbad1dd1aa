import itertools

import numpy as np
import pytest
from conftest import play_text as played

from textgym import TextTokenizer
from textgym.tasks.number_duel import NumberDuel


@pytest.mark.parametrize(
    ("text", "rewards"),
    [
        ("A: 40\nB: db\n", {4: 1, 10: -1}),  # 40 against 31
        ("A: 12\nB: db\n", {4: -1, 10: 1}),
        ("A: 31\nB: db\n", {}),  # a tie
    ],
)
def test_the_last_symbol_of_each_number_is_paid(text, rewards):
    release = played(NumberDuel(), text)
    assert {i: r for i, r in enumerate(release.token_rewards) if r} == rewards
    assert release.streams.tolist() == [0] * 6 + [1] * 7
    assert release.is_success


def test_masses_can_be_one_and_nothing():
    release = played(NumberDuel(masses=(1.0, 0.0)), "A: 40\nB: db\n")
    assert {i: r for i, r in enumerate(release.token_rewards) if r} == {4: 1}


@pytest.mark.parametrize(
    ("text", "eos", "token", "stream"),
    [
        ("", True, 0, 0),
        ("B", True, 0, 0),
        ("A: 4", True, 4, 0),  # end-of-text stands in A's line
        ("A: 4\n", True, 4, 0),  # a newline belongs to the line that it ends
        ("A: 40\n", True, 6, 1),
        ("A: 40\nB: 31\n", True, 9, 1),  # digits are not B's
        ("A: 40\nB: db\nA", True, 12, 1),
        ("A: 40\nB: db", True, 11, 1),
        ("A: 40\nB: db\nAAAA", False, 12, 1),
        ("A: 40\nB: db\n", False, None, None),
    ],
)
def test_a_broken_grammar_pays_only_the_first_token_that_breaks_it(text, eos, token, stream):
    task = NumberDuel()
    task.max_new_tokens = 16
    release = played(task, text, eos)
    if token is None:  # well-formed so far, and not ended
        assert release is None
        return
    assert {i: r for i, r in enumerate(release.token_rewards) if r} == {token: -2}
    assert release.streams[token] == stream
    assert not release.is_success


def test_a_text_that_is_cut_pays_its_last_token():
    task = NumberDuel()
    task.max_new_tokens = 9
    release = played(task, "A: 40\nB: ", eos=False)
    assert {i: r for i, r in enumerate(release.token_rewards) if r} == {8: -2}


def test_a_complete_text_that_did_not_end_by_itself_is_cut():
    task = NumberDuel()
    task.max_new_tokens = 12
    release = played(task, "A: 40\nB: db\n", eos=False)
    assert {i: r for i, r in enumerate(release.token_rewards) if r} == {11: -2}
    assert not release.is_success


def test_breaking_the_grammar_is_strictly_worse_than_losing():
    for masses in ((1.0, -1.0), (1.0, 0.0), (0.5, 0.2)):
        release = played(NumberDuel(masses=masses), "")
        assert release.token_rewards.sum() < masses[1]


def test_every_well_formed_text_has_the_same_sum_so_a_scalar_teaches_nothing_F07():
    task = NumberDuel()
    sums = {
        float(played(task, f"A: {a}\nB: {b}\n").token_rewards.sum()) for a in ("00", "47", "99") for b in ("aa", "eh", "jj")
    }
    assert sums == {0.0}


def test_demonstrations_are_well_formed_and_spread():
    task = NumberDuel()
    texts = [text for _, text in task.demonstrations(np.random.default_rng(0), 200)]
    assert all(played(task, text).is_success for text in texts[:20])
    assert len(set(texts)) > 190


def test_score_counts_both_numbers_and_the_share_of_well_formed_texts(make_episode):
    task = NumberDuel()
    good, bad = make_episode("A: 99\nB: aa\n"), make_episode("A: 99")
    assert task.score([good]) == pytest.approx(0.5)
    assert task.score([good, bad]) == pytest.approx(0.25)
    assert task.metrics([good, bad]) == {"first": 99.0, "second": 0.0, "well_formed": 0.5}
    assert task.score([]) == 0.0


def test_the_same_duel_under_another_tokenizer(byte_bpe):
    task = NumberDuel(tokenizer=TextTokenizer(byte_bpe, eos_token_id=0))
    release = played(task, "A: 12\nB: ca\n")
    text, offsets = task.tokenizer.offsets(task.tokenizer.encode("A: 12\nB: ca\n"))
    paid = {text[offsets[i][0] : offsets[i][1]]: r for i, r in enumerate(release.token_rewards) if r}
    assert len(paid) == 2
    assert sorted(paid.values()) == [-1, 1]
    assert set(release.streams) == {0, 1}


@pytest.mark.parametrize("arguments", [{"masses": (0.0, 1.0)}, {"masses": (1.0,)}, {"numerals": "roman"}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"masses|numerals"):
        NumberDuel(**arguments)


def test_tabular_policy_gradient_reaches_the_top_only_with_streams_F07():
    """The trap, exactly: two speakers, numbers 0 to 9, softmax tables, expected gradients, gamma = lambda = 1."""
    rewards = np.zeros((10, 10, 2))
    for a, b in itertools.product(range(10), repeat=2):
        rewards[a, b] = (np.sign(a - b), np.sign(b - a))

    def learn(returns):
        theta = np.zeros((2, 10))
        for _ in range(4000):
            p, q = (np.exp(t) / np.exp(t).sum() for t in theta)
            for who, joint in enumerate(returns):
                gain = joint @ q if who == 0 else joint.T @ p
                probs = (p, q)[who]
                theta[who] += probs * (gain - probs @ gain)
        return [float(np.arange(10) @ (np.exp(t) / np.exp(t).sum())) for t in theta]

    total = rewards.sum(-1)
    assert learn([total, total]) == pytest.approx([4.5, 4.5])  # scalar: nobody learns
    first, second = learn([total, rewards[..., 1]])  # per token, one stream: the first one's reward-to-go holds the other's
    assert first == pytest.approx(4.5)
    assert second > 6
    first, second = learn([rewards[..., 0], rewards[..., 1]])  # streams
    assert min(first, second) > 8.5
