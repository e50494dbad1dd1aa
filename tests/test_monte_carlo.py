import dataclasses

import pytest
from conftest import build_episode

from textgym.credit import MonteCarlo


def ends(*tails):
    """Continuations: each of ``tails`` put behind the text."""

    def continuations(episodes, k):
        assert all(episode.ended_by is None for episode in episodes)
        return [[dataclasses.replace(episode, text=episode.text + tail) for tail in tails] for episode in episodes]

    return continuations


def test_a_token_is_paid_what_it_adds_to_the_mean_of_the_continuations():
    assigner = MonteCarlo(lambda episodes: [float(e.text.count("a")) for e in episodes], ends("a", "bb"), k=2)
    # V("a") = (2 + 1) / 2, V("ab") = (2 + 1) / 2, V("aba") = (3 + 2) / 2, the whole text's score is 7
    assert assigner([7.0], [build_episode("abab")])[0].tolist() == [1.5, 0.0, 1.0, 4.5]
    assert assigner.reward_calls == 6
    assert assigner.causal


def test_what_is_missing_or_wrong_is_said():
    with pytest.raises(ValueError, match="MonteCarlo has no continuations"):
        MonteCarlo()
    with pytest.raises(ValueError, match="k is 0"):
        MonteCarlo(continuations=ends("a"), k=0)
    with pytest.raises(ValueError, match=r"there are \[1, 1\] continuations of 2 texts; give 2 of each"):
        MonteCarlo(lambda e: [0.0] * len(e), ends("a"), k=2)([1.0], [build_episode("abc")])
