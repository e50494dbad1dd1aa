"""One growing text; the doors' tests play it through the environment."""

import numpy as np

from textgym import Prompt, PromptTask
from textgym.rules import EOS, LENGTH, RUNNING, TURN_STOP, Rules
from textgym.text import Text


def build(letters, **options):
    return Rules(PromptTask(["ab"], letters, lambda e: [0.0] * len(e), **{"max_new_tokens": 3, **options}))


def test_a_text_grows_token_by_token_to_its_end(letters):
    rules = build(letters)
    text = Text(rules, rules.prompt(np.random.default_rng(0), {}, 0), 5)
    assert text.tokens.tolist() == [2, 3, -1, -1, -1]
    assert [text.write(4), text.write(1)] == [RUNNING, EOS]
    assert text.length == 4
    episode = text.episode(EOS)
    assert (episode.text, episode.episode_id, episode.ended_by) == ("c", 5, "eos")
    assert text.episode(RUNNING).ended_by is None


def test_the_limit_counts_the_response_not_the_prompt(letters):
    rules = build(letters)
    text = Text(rules, Prompt("ab", np.array([2, 3])), 0)
    assert [text.write(4) for _ in range(3)] == [RUNNING, RUNNING, LENGTH]


def test_replies_are_written_between_turns(letters):
    rules = build(letters, reply_fn=lambda e: "d" if len(e.ids) < 4 else None, turn_stop=["."], max_response_tokens=9)
    text = Text(rules, Prompt("ab", np.array([2, 3])), 0)
    dot = int(letters.encode(".")[0])
    assert [text.write(4), text.write(dot), text.write(dot)] == [RUNNING, RUNNING, TURN_STOP]
    assert text.episode(TURN_STOP).text == "c.d."
    assert text.episode(TURN_STOP).agent_mask.tolist() == [True, True, False, True]
    assert text.episode(TURN_STOP).turns.tolist() == [0, 0, 0, 1]
