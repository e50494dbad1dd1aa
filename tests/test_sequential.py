"""The workaround: each part is scored as if nothing came after it, which is checked by looking at what the scorer is given."""

import numpy as np
import pytest
from conftest import play_text

import textgym
from textgym import PromptTask, Span, symbol_tokenizer
from textgym.tasks.guess_number import GuessNumber
from textgym.tasks.number_duel import NumberDuel
from textgym.tasks.sequential import Sequential
from textgym.tasks.three_sentences import ThreeSentences


class Witness:
    """Scores a part by its length, and writes down everything that it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, episodes):
        self.seen += [(e.prompt.metadata["part"], e.prompt.text, e.text, e.ended_by) for e in episodes]
        return [float(len(episode.text)) for episode in episodes]


def test_a_part_is_scored_before_the_next_one_exists():
    witness = Witness()
    release = play_text(Sequential(ThreeSentences(), witness), " cats see. you like birds. we.")
    assert witness.seen == [
        (0, "", " cats see.", "stop"),
        (1, " cats see.", " you like birds.", "stop"),
        (2, " cats see. you like birds.", " we.", "stop"),
        (3, " cats see. you like birds. we.", "", "eos"),
    ]
    assert release.token_rewards.tolist() == [0, 0, 10, 0, 0, 0, 16, 0, 4, 0]
    assert release.streams.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 3]


def test_what_a_first_part_earns_does_not_depend_on_the_second():
    task = Sequential(NumberDuel(), duel_parts, ends=("\n",))
    paid = {text: play_text(task, f"A: 40\n{text}").token_rewards.tolist() for text in ("B: db\n", "B: jj\n", "B", "")}
    assert all(rewards[:6] == [0.0] * 6 for rewards in paid.values())
    assert [rewards for rewards in paid["B: db\n"] if rewards] == [-1.0]
    assert [rewards for rewards in paid["B: jj\n"] if rewards] == [1.0]
    # Judged in the end, the first number does earn what the second decides.
    retroactive = {text: play_text(NumberDuel(), f"A: 40\n{text}").token_rewards[4] for text in ("B: db\n", "B: jj\n")}
    assert retroactive == {"B: db\n": 1.0, "B: jj\n": -1.0}


def duel_parts(episodes):
    """The number duel as far as the workaround can judge it: B's number against A's; A's against nothing."""
    duel, out = NumberDuel(), []
    for episode in episodes:
        said, part = episode.prompt.text, episode.prompt.metadata["part"]
        if part == 1 and len(episode.text) == 6:
            first = int(said[3:5])
            second = int("".join(str("abcdefghij".index(letter)) for letter in episode.text[3:5]))
            out.append(duel.masses[0] if second > first else duel.masses[1] if second < first else 0.0)
        else:
            out.append(0.0)
    return out


def test_parts_rebuild_the_text_and_a_batch_scores_all_first_parts_first():
    witness = Witness()
    task = Sequential(ThreeSentences(), witness)
    envs = textgym.TextGenVectorEnv(2, task, autoreset_mode="Disabled", keep_episodes=True)
    envs.reset(seed=0)
    for action in (2, 14, 3, 14, 1):  # " I." " you." and end-of-text, in both slots
        envs.step(np.array([action, action]))
    for episode, _ in envs.take_episodes():
        parts = task.parts(episode)
        assert "".join(part.text for part in parts) == episode.text == " I. you."
        assert np.array_equal(np.concatenate([part.ids for part in parts]), episode.ids)
        for part in parts:
            assert part.text == task.tokenizer.decode(part.ids)
            assert np.array_equal(part.offsets, task.tokenizer.offsets(part.ids)[1])
    assert [number for number, *_ in witness.seen[:6]] == [0, 0, 1, 1, 2, 2]


def test_spans_and_token_rewards_of_parts_land_in_their_part():
    tokenizer = symbol_tokenizer(["a", "b", "."])

    def rewards(episodes):
        return [[textgym.Span(0, 1, 2.0)] if e.text else 5.0 for e in episodes]

    task = Sequential(PromptTask(["ab"], tokenizer, lambda episodes: [0.0] * len(episodes), max_new_tokens=8), rewards)
    assert play_text(task, "ab.b.").token_rewards.tolist() == [2, 0, 0, 2, 0, 5]
    assert play_text(task, "ab").token_rewards.tolist() == [2, 0, 0]


def test_it_keeps_the_contract():
    textgym.checks.check_task(Sequential(ThreeSentences(), lambda episodes: [float(len(e.text)) for e in episodes]))
    textgym.checks.check_task(Sequential(NumberDuel(), lambda episodes: [0.5] * len(episodes), ends=("\n",)))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="ends is"):
        Sequential(ThreeSentences(), Witness(), ends=".")
    with pytest.raises(ValueError, match="GuessNumber replies"):
        Sequential(GuessNumber(), Witness())


def test_parts_whose_spans_name_streams_are_refused():
    task = Sequential(ThreeSentences(), lambda parts: [[Span(0, len(p.text), 1.0, stream=7)] if p.text else 0.0 for p in parts])
    with pytest.raises(ValueError, match="part 0 of episode 0 has spans that name a stream"):
        play_text(task, " cats see. we.")


def test_criteria_of_parts_are_those_of_the_text_and_its_ledger_knows_them():
    def judge(parts):
        return [
            {"length": float(len(p.text)), "verb": 2.0 if "see" in p.text else []} if p.text else {"end": [1.0]} for p in parts
        ]

    release = play_text(Sequential(ThreeSentences(), judge), " cats see. we.")
    assert dict(release.criteria) == {"length": 14.0, "verb": 2.0, "end": 1.0}
    assert release.token_rewards.tolist() == [0, 0, 10 + 2, 0, 4, 1]
    assert (release.ledger.asked, dict(release.ledger.accounts)) == (17.0, {})
    silent = play_text(Sequential(ThreeSentences(), lambda parts: [{"length": 1.0, "verb": []} for _ in parts]), " we.")
    assert (dict(silent.criteria), dict(silent.ledger.accounts)) == ({"length": 2.0, "verb": 0.0}, {"nothing": 0.0})
    nothing = play_text(Sequential(ThreeSentences(), lambda parts: [[] for _ in parts]), " we.")
    assert (dict(nothing.criteria), dict(nothing.ledger.accounts)) == ({}, {"nothing": 0.0})


def test_weights_of_criteria_are_those_of_whoever_sets_them():
    task = Sequential(ThreeSentences(), lambda parts: [{"length": float(len(p.text))} for p in parts])
    task.weights = {"length": 0.5}
    release = play_text(task, " cats see. we.")
    assert release.token_rewards.tolist() == [0, 0, 5, 0, 2, 0]
    assert (release.ledger.asked, dict(release.ledger.accounts)) == (14.0, {"weight/length": 7.0})


def test_named_and_unnamed_rewards_of_one_text_are_refused_but_for_nothing():
    for rest, refused in ((1.0, True), (0.0, False), ([], False)):
        task = Sequential(ThreeSentences(), lambda parts, rest=rest: [{"x": 2.0} if p.text else rest for p in parts])
        if refused:
            with pytest.raises(ValueError, match=r"episode 0 earn 1.0 without a name and something under the criteria x; give"):
                play_text(task, " we.")
        else:
            assert dict(play_text(task, " we.").criteria) == {"x": 2.0}
