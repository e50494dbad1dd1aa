import copy
import dataclasses
import pickle

import numpy as np
import pytest

from textgym import Prompt, Span, TextTokenizer
from textgym.episode import read_only
from textgym.rules import RUNNING, Rules


def test_reward_functions_cannot_write_into_an_episode(make_episode):
    array = read_only(np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_episode().text = "other"


def test_prompts_and_spans_cross_process_borders():
    prompt = Prompt("a", np.array([1, 2]), {"answer": 3})
    back = pickle.loads(pickle.dumps(prompt))  # noqa: S301
    assert (back.text, back.metadata) == ("a", {"answer": 3})
    assert pickle.loads(pickle.dumps(Span(0, 1, 2.0))) == Span(0, 1, 2.0)  # noqa: S301


def test_tokens_are_found_by_the_characters_that_they_hold(make_episode):
    episode = make_episode("abcd", [(0, 1), (1, 3), (1, 3), (3, 4), (4, 4)])
    assert [episode.token_at(i) for i in range(4)] == [0, 2, 2, 3]
    assert episode.last_characters().tolist() == [0, 2, 2, 3, 4]
    with pytest.raises(ValueError, match=r"position is 4; episode 7 has characters 0\.\.3"):
        episode.token_at(4)


def test_a_span_can_pay_the_agents_tokens_that_hold_its_characters(make_episode):
    episode = make_episode("abcd", [(0, 1), (1, 1), (1, 3), (1, 3), (3, 4)], [True, True, True, False, True])
    assert episode.agent_tokens(0, 4).tolist() == [0, 2, 4]  # not the special token, not the environment's
    assert episode.agent_tokens(2, 3).tolist() == [2]


def test_text_and_offsets_are_read_when_somebody_asks_once_and_copies_hold_them(letters):
    rules = Rules(prompts=["a"], tokenizer=letters, reward_fn=lambda e: [0.0])
    asked = []

    class Counting(TextTokenizer):
        def offsets(self, ids):
            asked.append(len(ids))
            return super().offsets(ids)

    rules.tokenizer = Counting(letters)
    episode = rules.episode(Prompt("a"), letters.encode("bcd"), RUNNING, 3)
    assert (len(episode.agent_tokens(0, 1)) == 1, asked) == (True, [3])
    assert (episode.text, episode.offsets.tolist(), asked) == ("bcd", [[0, 1], [1, 2], [2, 3]], [3])
    assert not episode.offsets.flags.writeable
    copied = copy.deepcopy(rules.episode(Prompt("a"), letters.encode("bcd"), RUNNING, 3))
    assert vars(copied).keys() == vars(dataclasses.replace(episode, episode_id=4)).keys()
    assert (copied.text, copied.episode_id) == ("bcd", 3)
    with pytest.raises(AttributeError, match="'Episode' object has no attribute 'texts'"):
        _ = copied.texts
