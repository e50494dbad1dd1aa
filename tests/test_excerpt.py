from dataclasses import replace

import numpy as np
import pytest
from conftest import build_episode
from credit_kit import pairs, random_episode

from textgym import PromptTask, TextTokenizer
from textgym.credit import LeaveOneOut, excerpt, prefix, units
from textgym.credit.excerpt import without
from textgym.parts import Part, turns
from textgym.rules import EOS, Rules


def test_an_excerpt_holds_the_characters_of_its_tokens():
    episode = build_episode("abcdef", [(0, 2), (2, 3), (3, 6), (6, 6)], [True, False, True, True])
    kept = excerpt(episode, np.array([True, False, True, True]))
    assert (kept.text, kept.ids.tolist(), kept.ended_by) == ("abdef", [2, 4, 5], "eos")
    assert kept.offsets.tolist() == [[0, 2], [2, 5], [5, 5]]
    assert kept.agent_mask.tolist() == [True, True, True]
    start = prefix(episode, 1)
    assert (start.text, start.offsets.tolist(), start.ended_by) == ("abc", [[0, 2], [2, 3]], None)


def test_every_prefix_of_sampled_ids_reads_as_the_tokenizer_decodes_it(metaspace_bpe):
    rules = Rules(PromptTask(["he"], TextTokenizer(metaspace_bpe, eos_token_id=2), lambda e: [0.0] * len(e)))
    ids = rules.tokenizer.encode("he said so, hello world")
    whole = rules.episode(rules.task.prompts[0], ids, EOS, 0)
    for last in range(len(ids)):
        assert prefix(whole, last).text == rules.tokenizer.decode(ids[: last + 1])


def test_tokens_that_share_a_character_are_one_unit():
    episode = build_episode("aéb", [(0, 1), (1, 2), (1, 2), (2, 3), (3, 3)])
    assert [unit.tolist() for unit in units(episode)] == [[0], [1, 2], [3], [4]]
    overlapping = build_episode("abcd", [(0, 2), (1, 4)])
    assert [unit.tolist() for unit in units(overlapping)] == [[0, 1]]


def test_a_special_token_in_the_midst_of_a_character_does_not_tear_it(metaspace_bpe):
    tokenizer = TextTokenizer(metaspace_bpe, eos_token_id=2)
    first, second, letter = (metaspace_bpe.token_to_id(piece) for piece in ("<0xC3>", "<0xA9>", "h"))
    text, offsets = tokenizer.offsets([letter, first, 1, second, letter])
    assert (text, offsets[1:4].tolist()) == ("héh", [[1, 2], [2, 2], [1, 2]])
    episode = build_episode(text, offsets)
    assert [unit.tolist() for unit in units(episode)] == [[0], [1, 2, 3], [4]]
    assert [unit.tolist() for unit in units(episode, lambda e: [Part(0, 1), Part(1, 3)])] == [[0], [1, 2, 3, 4]]


def test_spans_do_not_tear_tokens_that_share_a_character():
    """Two pieces of a byte-level vocabulary: the letter a and half of an é, its other half and the letter b."""
    episode = build_episode("aéb", [(0, 2), (1, 3)])
    assert [unit.tolist() for unit in units(episode, lambda e: [Part(0, 2), Part(2, 3)])] == [[0, 1]]
    assert units(episode, lambda e: [Part(0, 2)]) == []
    asked = []
    score = LeaveOneOut(lambda texts: [asked.append(text.text) or 1.0 for text in texts], lambda e: [Part(0, 2), Part(2, 4)])
    score([3.0], [build_episode("aébc", [(0, 2), (1, 3), (3, 4)])])
    assert asked == []  # one part holds them all; half of the é was asked for before


def test_a_token_over_the_edge_of_two_spans_belongs_to_the_second_and_is_taken_out_whole():
    episode = build_episode("ab cd", [(0, 1), (1, 4), (4, 5)])
    found = units(episode, lambda e: [Part(0, 2), Part(2, 5)])
    assert [unit.tolist() for unit in found] == [[0], [1, 2]]
    assert [excerpt(episode, without(episode, [unit])).text for unit in found] == ["b cd", "a"]


def characters(episode, tokens):
    return {character for token in tokens for character in range(*episode.offsets[token])}


@pytest.mark.parametrize("spans", [None, pairs])
def test_no_part_and_no_beginning_of_a_text_shares_a_character_with_the_rest(spans):
    rng, sharing = np.random.default_rng(0), 0
    for number in range(300):
        episode = random_episode(rng, number)
        everyone = range(len(episode.ids))
        for unit in units(episode, spans):
            starts, ends = episode.offsets[unit].T
            sharing += bool((starts[1:] < ends[:-1]).any())
            assert not characters(episode, unit) & characters(episode, {*everyone} - {*unit.tolist()})
            assert not characters(episode, everyone[: unit[-1] + 1]) & characters(episode, everyone[unit[-1] + 1 :])
    assert sharing > 20


def test_spans_own_the_tokens_that_end_in_them():
    episode = build_episode("ab cd", [(0, 1), (1, 3), (3, 4), (4, 5), (5, 5)], [True, True, False, True, True])
    assert [unit.tolist() for unit in units(episode, lambda e: [Part(3, 5), Part(0, 2)])] == [[0], [3]]
    assert [unit.tolist() for unit in units(episode, lambda e: [Part(0, 3), Part(3, 4)])] == [[0, 1]]


@pytest.mark.parametrize("parts", [[Part(0, 2), Part(1, 3)], [Part(0, 9)], [Part(3, 2)]])
def test_spans_that_overlap_or_leave_the_text_are_refused(parts):
    with pytest.raises(ValueError, match="spans of episode 7"):
        units(build_episode("abcd"), lambda episode: parts)


def test_a_turn_without_characters_is_no_unit():
    episode = build_episode("+ab", [(0, 0), (0, 1), (1, 2), (2, 3)], [True, False, True, True])
    episode = replace(episode, turns=np.array([0, 0, 1, 1]))
    assert turns(episode) == [Part(0, 0), Part(1, 3)]
    assert [unit.tolist() for unit in units(episode, turns)] == [[2, 3]]
