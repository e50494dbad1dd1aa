"""The texts that checks are made on."""

import numpy as np
import pytest

from textgym import PromptTask
from textgym.probes import play_demonstrations, play_random, play_texts
from textgym.rules import Rules


def build(letters, **options):
    return Rules(PromptTask(["a", "b"], letters, lambda e: [0.0] * len(e), **{"max_new_tokens": 6, **options}))


def test_random_texts_are_empty_short_long_and_cut(letters):
    rules = build(letters)
    played = play_random(rules, 40, seed=0)
    assert {sampled.episode.ended_by for sampled in played} == {"eos", "length"}
    assert min(len(sampled.episode.text) for sampled in played) == 0
    again = play_random(rules, 40, seed=0)
    assert all(np.array_equal(a.episode.ids, b.episode.ids) for a, b in zip(played, again, strict=True))


def test_given_texts_are_closed_by_end_of_text_also_after_replies(letters):
    (plain,) = play_texts(build(letters), ["cd"])
    assert (plain.episode.text, plain.episode.ended_by) == ("cd", "eos")
    (turned,) = play_texts(build(letters, reply_fn=lambda e: "h" if len(e.ids) < 4 else None, max_response_tokens=9), ["cd"])
    assert (turned.episode.text, len(turned.actions)) == ("cdh", 4)


def test_demonstrations_are_played_with_their_replies(letters):
    options = {"reply_fn": lambda e: "h" if len(e.ids) < 3 else None, "turn_stop": ["."], "max_response_tokens": 9}
    good = build(letters, demonstrations=[("a", ["c.", "h", "d."])], **options)
    assert {sampled.episode.text for sampled in play_demonstrations(good, 0)} == {"c.hd."}
    wrong = build(letters, demonstrations=[("a", ["c.", "g", "d."])], **options)
    with pytest.raises(AssertionError, match=r"was played as 'c\.hd\.'"):
        play_demonstrations(wrong, 0)
