import pytest
from conftest import build_episode

from textgym.credit import Discounted, KeepLast, Last, LeaveOneOut, Uniform
from textgym.parts import matches

EPISODE = build_episode("abcd", agent_mask=[True, False, True, False])


def words(episode):
    return matches(episode, "[a-z]+")


def test_last_pays_the_last_agent_token_and_uniform_each_of_them():
    assert Last()([3.0], [EPISODE])[0].tolist() == [0, 0, 3.0, 0]
    assert Uniform()([3.0], [EPISODE])[0].tolist() == [1.5, 0, 1.5, 0]


def test_uniform_over_spans_pays_their_last_tokens_alike():
    assert Uniform(words)([4.0], [build_episode("ab c.")])[0].tolist() == [0, 2.0, 0, 2.0, 0]
    assert Uniform(words)([4.0], [build_episode("...")])[0].tolist() == [0, 0, 4.0]


def test_discounted_halves_from_token_to_token():
    assert Discounted(0.5)([7.0], [build_episode("abc")])[0].tolist() == [1.0, 2.0, 4.0]
    assert Discounted(0.5)([3.0], [EPISODE])[0].tolist() == [1.0, 0, 2.0, 0]
    assert Discounted(0.0)([3.0], [EPISODE])[0].tolist() == Last()([3.0], [EPISODE])[0].tolist()
    assert Discounted(1.0)([3.0], [EPISODE])[0].tolist() == Uniform()([3.0], [EPISODE])[0].tolist()
    with pytest.raises(ValueError, match=r"discount is 1\.5"):
        Discounted(1.5)


def test_a_long_text_keeps_its_sum_where_shares_underflow():
    (paid,) = Discounted(0.5)([1.0], [build_episode("a" * 3000)])
    assert paid.sum() == pytest.approx(1.0, abs=1e-12)
    assert not ((paid != 0) & (paid.astype("float32") == 0)).any()


def test_keep_last_keeps_its_share_and_declares_as_the_other():
    mixed = KeepLast(Uniform(), 0.25)
    assert mixed([4.0], [build_episode("abcd")])[0].tolist() == [0.75, 0.75, 0.75, 1.75]
    assert (mixed.causal, mixed.conserves, mixed.last_share) == (False, True, 0.25)
    assert KeepLast(Last()).causal
    with pytest.raises(ValueError, match="share is 0"):
        KeepLast(Last(), 0)


def test_keep_last_hands_the_score_on_and_counts_as_the_other():
    bound = KeepLast(LeaveOneOut()).bound(lambda episodes: [float(len(e.text)) for e in episodes])
    assert bound([3.0], [build_episode("abc")])[0].tolist() == [0.5, 0.5, 2.0]
    assert bound.reward_calls == 3


def test_what_keep_last_makes_too_small_for_float32_goes_to_the_last_token():
    episode = build_episode("a" * 200)
    split = Discounted(0.5)([1.0], [episode])[0]
    assert 0 < split[60] < 1e-41
    (paid,) = KeepLast(Discounted(0.5), 0.9)([1.0], [episode])
    assert paid.sum() == pytest.approx(1.0, abs=1e-12)
    assert not ((paid != 0) & (paid.astype("float32") == 0)).any()
