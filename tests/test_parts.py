import json
import math
import random
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import build_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym import Episode, Prompt, Span, TextTokenizer, resolve
from textgym.parts import Part, json_field, lines, matches, pay, pay_turns, sentences, share_mass, turns


def held(parts, text: str) -> list[str]:
    return [text[part.start : part.end] for part in parts]


def episode_of(tokenizer: TextTokenizer, ids, agent_mask=None, turn_numbers=None) -> Episode:
    """The episode of sampled ids, with the offsets that the environment would give it."""
    text, offsets = tokenizer.offsets(ids)
    return Episode(
        prompt=Prompt("", np.array([0])),
        ids=np.array(ids, dtype=np.int64),
        text=text,
        offsets=offsets,
        agent_mask=np.ones(len(ids), dtype=np.bool_) if agent_mask is None else np.array(agent_mask, dtype=np.bool_),
        turns=np.zeros(len(ids), dtype=np.int64) if turn_numbers is None else np.array(turn_numbers, dtype=np.int64),
        ended_by="eos",
        episode_id=7,
    )


def overlapping(episode: Episode, part: Part) -> list[int]:
    """The agent tokens that overlap a part, one by one, as the rewards' documentation says."""
    tokens = zip(episode.offsets.tolist(), episode.agent_mask.tolist(), strict=True)
    wide = [(i, start, end) for i, ((start, end), agent) in enumerate(tokens) if agent and start < end]
    return [i for i, start, end in wide if start < part.end and end > part.start]


# --- matches --------------------------------------------------------------------------------------------------------------


def test_matches_are_ranges_of_characters():
    assert matches(build_episode("a1 b22"), r"\d+") == [Part(1, 2), Part(4, 6)]
    assert matches(build_episode("aaa"), "aa") == [Part(0, 2)]
    assert matches(build_episode("ab AB"), re.compile("ab", re.IGNORECASE)) == [Part(0, 2), Part(3, 5)]
    assert matches(build_episode("abc"), "x") == []


def test_a_match_counts_characters_not_bytes_or_columns():
    assert matches(build_episode("é😀 שלום!"), "שלום") == [Part(3, 7)]


def test_a_group_is_named_by_index_or_name():
    episode = build_episode("k=1 l=2")
    assert matches(episode, r"(\w)=(?P<value>\d)", 1) == [Part(0, 1), Part(4, 5)]
    assert matches(episode, r"(\w)=(?P<value>\d)", "value") == [Part(2, 3), Part(6, 7)]


def test_groups_that_took_no_part_and_empty_matches_are_left_out():
    assert matches(build_episode("ab"), "a|(b)", 1) == [Part(1, 2)]
    assert matches(build_episode("ab"), "x*") == []
    assert matches(build_episode("ab"), "(x*)b", 1) == []


@pytest.mark.parametrize("group", [2, -1, "other"])
def test_an_unknown_group_is_refused_with_those_there_are(group):
    with pytest.raises(ValueError, match=re.escape(f"group is {group!r}; '(?P<value>a)' has the groups 0..1, 'value'; name")):
        matches(build_episode("a"), "(?P<value>a)", group)


def test_a_pattern_for_bytes_is_refused():
    with pytest.raises(ValueError, match="pattern is b'a', for bytes; give one for text"):
        matches(build_episode("a"), re.compile(b"a"))  # type: ignore[arg-type]
    with pytest.raises(re.error):
        matches(build_episode("a"), "(")


# --- lines ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("ab", ["ab"]),
        ("ab\n", ["ab\n"]),
        ("a\n\nb", ["a\n", "\n", "b"]),
        ("\n\n", ["\n", "\n"]),
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h\n", ["a\r\n", "b\rc\x0bd\x0ce\x85f\u2028g\u2029h\n"]),
    ],
)
def test_only_a_newline_ends_a_line_and_belongs_to_it(text, expected):
    assert held(lines(build_episode(text)), text) == expected


# --- sentences ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("  One.  Two ", ["One.", "Two"]),
        ("pi is 3.14, e.g. here", ["pi is 3.14, e.g.", "here"]),
        ("See www.a.de or a.b", ["See www.a.de or a.b"]),
        ("What?! No... Yes… (Well.) [Then!]", ["What?!", "No...", "Yes…", "(Well.)", "[Then!]"]),
        ('He said "Go." She went.', ['He said "Go."', "She went."]),
        ("„Ja.“ «Oui.» ‘No.’ ”Nej.” Ende", ["„Ja.“", "«Oui.»", "‘No.’", "”Nej.”", "Ende"]),
        ('(He said "go.").\nYes', ['(He said "go.").', "Yes"]),
        ("Title\n\nText. Rest", ["Title\n\nText.", "Rest"]),
        ("Dr. No", ["Dr.", "No"]),
        ("。！ 今日は。明日！？はい。3.14。", ["。！", "今日は。", "明日！？", "はい。", "3.14。"]),
        ("「行く。」と言う。（笑。）終", ["「行く。」", "と言う。", "（笑。）", "終"]),
        ("他说。“你好。”她说", ["他说。", "“你好。”", "她说"]),
        ('他说。"你好。" 她', ["他说。", '"你好。"', "她"]),
        ("你好!你好. 好", ["你好!你好.", "好"]),
        ("هل أنت هنا؟ نعم۔ لا", ["هل أنت هنا؟", "نعم۔", "لا"]),
        ("यह घर है। वह नहीं", ["यह घर है।", "वह नहीं"]),
        ("שלום. עולם", ["שלום.", "עולם"]),
        ("Hi 😀! 😀", ["Hi 😀!", "😀"]),
        ("a.\u3000b.\u00a0c", ["a.", "b.", "c"]),
        (". . .", [".", ".", "."]),
    ],
)
def test_sentences_end_where_the_rule_says(text, expected):
    assert held(sentences(build_episode(text)), text) == expected


# --- turns ----------------------------------------------------------------------------------------------------------------


def test_a_turn_is_what_the_agents_tokens_hold_from_the_first_to_the_last(letters):
    ids = [*letters.encode("ab"), 1, *letters.encode(". "), *letters.encode("cd"), 1]
    episode = episode_of(letters, ids, [1, 1, 1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1])
    assert turns(episode) == [Part(0, 2), Part(4, 6)]


def test_a_turn_without_characters_is_an_empty_part_at_its_place(letters):
    a, eos = int(letters.encode("a")[0]), 1
    episode = episode_of(letters, [eos, a, a, eos, a, a], [1, 0, 1, 1, 0, 1], [0, 0, 1, 2, 2, 4])
    assert turns(episode) == [Part(0, 0), Part(1, 2), Part(2, 2), Part(2, 2), Part(3, 4)]  # turn 3 has no token at all
    assert turns(episode_of(letters, [a, a], [0, 1], [0, 1])) == [Part(0, 0), Part(1, 2)]


def test_an_agent_that_wrote_nothing_had_no_turn(letters):
    assert turns(build_episode("")) == []
    assert turns(build_episode("ab", agent_mask=[False, False])) == []


# --- json_field -----------------------------------------------------------------------------------------------------------

DOCUMENT = ' \n{"a": [1, {"b" : "x\\"y"}, -2.5e3], "": null, "é": {"0": true}, "a b":[ ]}\t'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), DOCUMENT.strip()),
        (("a",), '[1, {"b" : "x\\"y"}, -2.5e3]'),
        (("a", 0), "1"),
        (("a", 1, "b"), '"x\\"y"'),
        (("a", 2), "-2.5e3"),
        (("",), "null"),
        (("é", "0"), "true"),
        (("a b",), "[ ]"),
    ],
)
def test_a_field_is_the_range_of_its_value(path, expected):
    part = json_field(build_episode(DOCUMENT), *path)
    assert part is not None
    assert DOCUMENT[part.start : part.end] == expected


@pytest.mark.parametrize("path", [("b",), ("a", 3), ("a", "0"), ("é", 0), ("", "a"), ("a", 0, 0), ("a", 1, "b", 0), ("a b", 0)])
def test_a_field_that_is_not_there_is_none(path):
    assert json_field(build_episode(DOCUMENT), *path) is None


def test_of_duplicate_keys_the_last_counts():
    text = '{"a": {"b": 1}, "a": [7], "\\u0061": 22}'
    assert json_field(build_episode(text), "a") == Part(36, 38)
    assert json_field(build_episode(text), "a", "b") is None


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[1,]", "{'a': 1}", '{"a": 1} x', "nan", "1 2", '"\n"', "\ufeff1", "\u00a01", "[" * 100_000, "1" * 5000],
    ids=lambda text: repr(text[:8]),
)
def test_a_text_that_json_refuses_has_no_field(text):
    assert json_field(build_episode(text)) is None


def test_brackets_inside_a_string_are_no_members():
    assert json_field(build_episode('"1]"'), 0) is None
    assert json_field(build_episode('["1, 2]", 3]'), 1) == Part(10, 11)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1", '"a"', "true"])
def test_a_text_that_json_reads_has_a_value(text):
    assert json_field(build_episode(text)) == Part(0, len(text))


@pytest.mark.parametrize("step", [-1, True, 1.0, None])
def test_a_step_that_is_neither_key_nor_index_is_refused(step):
    with pytest.raises(ValueError, match=re.escape(f"path has {step!r}; allowed are keys (str) and list indices from 0")):
        json_field(build_episode("no json"), "a", step)


# --- parts of the agent, parts of the environment -------------------------------------------------------------------------


def test_parts_that_the_environment_wrote_are_left_out_unless_asked_for_F27():
    text = "a. b.\nc. d."
    episode = build_episode(text, agent_mask=[i < 3 for i in range(len(text))])
    assert lines(episode) == [Part(0, 6)]
    assert lines(episode, all_text=True) == [Part(0, 6), Part(6, 11)]
    assert sentences(episode) == [Part(0, 2)]
    assert held(sentences(episode, all_text=True), text) == ["a.", "b.", "c.", "d."]
    assert matches(episode, r"\w") == [Part(0, 1)]
    assert held(matches(episode, r"\w", all_text=True), text) == ["a", "b", "c", "d"]


def test_a_field_that_the_environment_wrote_is_left_out_unless_asked_for_F27():
    episode = build_episode('{"a": 1}', agent_mask=[i < 6 for i in range(8)])
    assert json_field(episode) == Part(0, 8)
    assert json_field(episode, "a") is None
    assert json_field(episode, "a", all_text=True) == Part(6, 7)


def test_one_byte_of_a_split_character_makes_a_part_the_agents(byte_bpe):
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    ids = tokenizer.encode("\x01\n").tolist()
    smile = tokenizer.encode("🙂").tolist()
    assert len(smile) > 1
    episode = episode_of(tokenizer, [*ids, *smile], [False] * len(ids) + [True] + [False] * (len(smile) - 1))
    assert held(lines(episode), episode.text) == ["🙂"]


def test_special_tokens_inside_a_split_character_hide_no_part(metaspace_bpe):
    tokenizer = TextTokenizer(metaspace_bpe, eos_token_id=2)
    first, last = (metaspace_bpe.token_to_id(f"<0x{byte:02X}>") for byte in "é".encode())
    episode = episode_of(tokenizer, [first, 2, 2, last], [False, True, True, True])
    assert episode.offsets.tolist() == [[0, 1], [1, 1], [1, 1], [0, 1]]  # starts are not in order
    assert lines(episode) == [Part(0, 1)]


# --- pay ------------------------------------------------------------------------------------------------------------------


def test_each_part_is_paid_its_own_reward():
    assert pay([Part(0, 2), Part(3, 5)], [1.0, -2]) == [Span(0, 2, 1.0), Span(3, 5, -2)]
    assert pay([], []) == []
    (resolved,) = resolve([pay([Part(0, 2), Part(3, 5)], [1.0, -2])], [build_episode("ab cd")])
    assert resolved.token_rewards.tolist() == [0, 1, 0, 0, -2]


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.array(2.0), torch.tensor(2.0)])
def test_one_number_is_paid_on_every_part(number):
    (resolved,) = resolve([pay([Part(0, 2), Part(3, 5)], number)], [build_episode("ab cd")])
    assert resolved.token_rewards.tolist() == [0, 2, 0, 0, 2]
    assert pay([], number) == []


@pytest.mark.parametrize("rewards", [(1, 2), np.array([1, 2]), torch.tensor([1.0, 2.0]), share_mass([1, 2], 3)])
def test_rewards_may_be_any_sequence_of_numbers(rewards):
    (resolved,) = resolve([pay(lines(build_episode("a\nb")), rewards)], [build_episode("a\nb")])
    assert resolved.token_rewards.tolist() == [0, 1, 2]


def test_streams_are_those_of_the_spans():
    parts = [Part(0, 1), Part(1, 1), Part(1, 2)]
    assert [span.stream for span in pay(parts, [1, 0, 1])] == [None, None]
    assert [span.stream for span in pay(parts, [1, 0, 1], streams=True)] == [0, 2]  # part i is stream i
    assert [span.stream for span in pay(parts, [1, 0, 1], streams=[5, 6, 5])] == [5, 5]
    assert [span.stream for span in pay(parts, [1, 0, 1], streams=np.array([5, 6, 7]))] == [5, 7]  # type: ignore[arg-type]


def test_an_empty_part_is_left_out_if_it_earns_nothing_and_refused_otherwise():
    assert pay([Part(3, 3), Part(0, 1)], [0.0, 0.0]) == [Span(0, 1, 0.0)]
    with pytest.raises(ValueError, match=r"part 1 is Part\(start=3, end=3\), empty, and earns 1.0; .*leave it out"):
        pay([Part(0, 1), Part(3, 3)], 1.0)
    with pytest.raises(ValueError, match="earns nan"):
        pay([Part(3, 3)], math.nan)


@pytest.mark.parametrize(
    ("rewards", "streams", "message"),
    [
        ([1.0], None, "pay got 2 parts but 1 rewards"),
        ([1.0] * 3, None, "pay got 2 parts but 3 rewards"),
        ([], None, "pay got 2 parts but 0 rewards"),
        (1.0, [0], "pay got 2 parts but 1 streams"),
        (1.0, [0, 1, 2], "pay got 2 parts but 3 streams"),
        (1.0, False, "streams is False, a bool; give None, True"),
        (1.0, 3, "streams is 3, a int; give None, True"),
        ("12", None, "rewards is 12, a str; give one real number, or a list"),
        (None, None, "rewards is None, a NoneType; give one real number, or a list"),
        ({Part(0, 1): 1.0, Part(1, 2): 1.0}, None, "a dict; give one real number, or a list"),
    ],
)
def test_rewards_or_streams_that_do_not_fit_the_parts_are_refused(rewards, streams, message):
    with pytest.raises(ValueError, match=message):
        pay([Part(0, 1), Part(1, 2)], rewards, streams=streams)


def test_a_field_that_was_not_found_is_refused_with_a_next_step():
    with pytest.raises(ValueError, match=r"part 0 is None; the field was not found; .*return"):
        pay([json_field(build_episode("no json"), "a")], 1.0)  # type: ignore[list-item]


@pytest.mark.parametrize("parts", [None, Part(0, 1), "ab", (part for part in [Part(0, 1)])])
def test_parts_come_as_a_list(parts):
    with pytest.raises(ValueError, match=r"^parts is .*; give a list of Part\(start, end\)"):
        pay(parts, 1.0)


@pytest.mark.parametrize("part", [(0, 1), 0, Span(0, 1, 1.0)])
def test_what_is_no_part_is_refused(part):
    with pytest.raises(ValueError, match=r"part 0 is .*parts are Part"):
        pay([part], 1.0)


@pytest.mark.parametrize("reward", [True, "1", None, math.nan, 1e39])
def test_a_reward_that_no_span_can_have_is_left_to_resolve_which_names_the_episode(reward):
    with pytest.raises(ValueError, match="reward for episode 7 has"):
        resolve([pay([Part(0, 1)], [reward])], [build_episode("a")])


# --- share_mass -----------------------------------------------------------------------------------------------------------


def test_shares_are_in_proportion_to_the_scores():
    assert share_mass([1, 3]).tolist() == [0.25, 0.75]
    assert share_mass([1, 0, 1], 3.0).tolist() == [1.5, 0, 1.5]
    assert share_mass([2, 2], -1.0).tolist() == [-0.5, -0.5]
    assert share_mass(np.array([5], dtype=np.float32), 2).tolist() == [2]
    assert share_mass([True, False, True]).tolist() == [0.5, 0, 0.5]
    assert share_mass([1, 2], 0.0).tolist() == [0, 0]
    assert share_mass([1, 2]).dtype == np.float64


def test_where_all_scores_are_0_the_caller_says_who_gets_the_mass():
    assert share_mass([0, 0, 0, 0], 2.0).tolist() == [0.5] * 4
    assert share_mass([0, 0], 2.0, when_zero="even").tolist() == [1, 1]
    assert share_mass([0, 0], 2.0, when_zero="none").tolist() == [0, 0]
    with pytest.raises(ValueError, match="all 2 scores are 0, and when_zero='error'; give"):
        share_mass([0, -0.0], 2.0, when_zero="error")
    assert share_mass([0, 1], when_zero="error").tolist() == [0, 1]


def test_shares_survive_overflow_and_denormal_scores():
    assert share_mass([1.7e308, 1.7e308]).tolist() == [0.5, 0.5]
    assert share_mass([5e-324, 5e-324]).tolist() == [0.5, 0.5]
    assert share_mass([5e-324, 1.5e-323]).tolist() == [0.25, 0.75]
    assert share_mass([5e-324, 1e308]).tolist() == [0, 1]
    assert share_mass([1.0], 1e308).tolist() == [1e308]


@pytest.mark.parametrize(
    ("scores", "total", "rule", "message"),
    [
        ([1, -0.5], 1.0, "even", "score 1 is -0.5; scores are finite and at least 0"),
        ([math.nan], 1.0, "even", "score 0 is nan;"),
        ([0, 0, math.inf], 1.0, "even", "score 2 is inf;"),
        ([], 1.0, "even", r"scores are \[\]; give a list"),
        (1.0, 1.0, "even", "scores are 1.0; give a list"),
        ([[1.0]], 1.0, "even", r"scores are \[\[1.0\]\]; give a list"),
        (["1"], 1.0, "even", r"scores are \['1'\]; give a list"),
        ([1j], 1.0, "even", r"scores are \[1j\]; give a list"),
        ([1], math.nan, "even", "total is nan; allowed are finite numbers"),
        ([1], math.inf, "even", "total is inf; allowed are finite numbers"),
        ([1], 1.0, "all", "when_zero is 'all'; allowed are 'even', 'none' and 'error'"),
    ],
)
def test_wrong_scores_totals_and_rules_are_refused(scores, total, rule, message):
    with pytest.raises(ValueError, match=message):
        share_mass(scores, total, when_zero=rule)


# --- properties over random tokenisations ---------------------------------------------------------------------------------

TEXTS = [
    "One. Two!\nThree is 3.14? (Yes.) ",
    "héllo wörld, „Ja.“ «Oui.» ",
    "今日は。明日！「はい。」3.14。",
    "שלום. עולם! ",
    "هل أنت هنا؟ نعم۔\n",
    "यह घर है। ",
    "😀! 👨‍👩‍👧. 🇩🇪\n\n",
    " hello  world ",
    "\r\n\u2028",
]


@pytest.fixture(scope="session")
def readers(byte_bpe, metaspace_bpe, letters) -> list[TextTokenizer]:
    return [TextTokenizer(byte_bpe, eos_token_id=0), TextTokenizer(metaspace_bpe, eos_token_id=2), letters]


def draw_episode(data: st.DataObject, readers: list[TextTokenizer]) -> Episode:
    """Segments of random ids or of known text, cut anywhere, written by the agent or the environment, in growing turns."""
    which = data.draw(st.sampled_from(range(len(readers))), label="tokenizer")
    tokenizer = readers[which]
    random_ids = st.lists(st.integers(0, len(tokenizer) - 1), max_size=10)
    texts = st.text("abcdefgh .\n", max_size=10) if which == 2 else st.sampled_from(TEXTS) | st.text(max_size=6)
    ids, mask, turn_numbers, turn = [], [], [], 0
    for _ in range(data.draw(st.integers(0, 4), label="segments")):
        segment = data.draw(random_ids | texts)
        if isinstance(segment, str):
            segment = tokenizer.encode(segment).tolist()
            first = data.draw(st.integers(0, max(0, len(segment) - 1)))
            segment = segment[first : data.draw(st.integers(first, len(segment)))]
        agent = data.draw(st.booleans())
        ids += segment
        mask += [agent] * len(segment)
        turn_numbers += [turn] * len(segment)
        turn += data.draw(st.integers(0, 2))
    for token in data.draw(st.lists(st.integers(0, max(0, len(ids) - 1)), max_size=3)):
        if ids:
            mask[token] = not mask[token]
    return episode_of(tokenizer, ids, mask, turn_numbers)


FINDERS = {
    "lines": lines,
    "sentences": sentences,
    "words": lambda episode, **options: matches(episode, r"\w+", **options),
    "characters": lambda episode, **options: matches(episode, r"(?s).", **options),
    "pairs": lambda episode, **options: matches(episode, r"(?s)(.)(.)?", 2, **options),
}


@pytest.mark.parametrize("find", FINDERS.values(), ids=FINDERS.keys())
@settings(max_examples=60)
@given(data=st.data())
def test_parts_are_found_in_order_and_are_exactly_those_that_resolve_pays(readers, find, data):
    episode = draw_episode(data, readers)
    everything = find(episode, all_text=True)
    assert all(0 <= part.start < part.end <= len(episode.text) for part in everything)
    assert all(a.end <= b.start for a, b in pairwise(everything))
    found = find(episode)
    assert found == [part for part in everything if overlapping(episode, part)]
    for part in everything:
        if part in found:
            resolve([pay([part], 1.0)], [episode])
        else:
            with pytest.raises(ValueError, match="over no token of the agent"):
                resolve([pay([part], 1.0)], [episode])


@settings(max_examples=150)
@given(data=st.data())
def test_lines_tile_the_text(readers, data):
    episode = draw_episode(data, readers)
    found = held(lines(episode, all_text=True), episode.text)
    assert "".join(found) == episode.text
    assert [line.count("\n") for line in found[:-1]] == [1] * len(found[:-1])
    assert all(line.endswith("\n") for line in found[:-1])


@settings(max_examples=150)
@given(data=st.data())
def test_sentences_hold_all_but_the_whitespace_between_them(readers, data):
    text = draw_episode(data, readers).text
    found = sentences(build_episode(text))
    assert all(sentence == sentence.strip() != "" for sentence in held(found, text))
    edges = [0, *(edge for part in found for edge in part), len(text)]
    assert all(text[start:end].strip() == "" for start, end in zip(edges[::2], edges[1::2], strict=True))


@settings(max_examples=150)
@given(data=st.data())
def test_turns_hold_every_character_of_the_agent_and_only_their_own_ends(readers, data):
    episode = draw_episode(data, readers)
    found = turns(episode)
    own = episode.turns[episode.agent_mask]
    assert len(found) == (own.max() + 1 if len(own) else 0)
    for turn, part in enumerate(found):
        offsets = episode.offsets[episode.agent_mask & (episode.turns == turn)].tolist()
        characters = {character for start, end in offsets for character in range(start, end)}
        if characters:
            assert part == (min(characters), max(characters) + 1)
        else:
            assert part.start == part.end <= len(episode.text)


@settings(max_examples=200)
@given(data=st.data())
def test_what_is_paid_on_parts_is_conserved_on_the_last_agent_token_of_each(readers, data):
    episode = draw_episode(data, readers)
    find = data.draw(st.sampled_from([*FINDERS.values(), turns]))
    parts = find(episode)
    rewards = [data.draw(st.floats(-10, 10, width=32)) if part.start < part.end else 0.0 for part in parts]
    (resolved,) = resolve([pay(parts, rewards)], [episode])
    expected = np.zeros(len(episode.ids))
    for part, reward in zip(parts, rewards, strict=True):
        if part.start < part.end:
            expected[overlapping(episode, part)[-1]] += reward
    assert resolved.token_rewards == pytest.approx(expected, abs=1e-5)
    assert not resolved.token_rewards[~episode.agent_mask].any()
    size = max(1.0, sum(abs(reward) for reward in rewards))
    assert float(resolved.token_rewards.sum(dtype=np.float64)) == pytest.approx(sum(rewards), abs=1e-5 * size)


@settings(max_examples=150)
@given(data=st.data())
def test_a_shared_mass_reaches_the_tokens_whole(readers, data):
    episode = draw_episode(data, readers)
    parts = sentences(episode)
    if parts:
        scores = data.draw(st.lists(st.integers(0, 9), min_size=len(parts), max_size=len(parts)))
        (resolved,) = resolve([pay(parts, share_mass(scores, 2.0), streams=True)], [episode])
        assert float(resolved.token_rewards.sum(dtype=np.float64)) == pytest.approx(2.0, abs=1e-5)


@settings(max_examples=200)
@given(data=st.data())
def test_a_token_is_of_the_stream_of_the_last_part_it_holds_a_character_of(readers, data):
    episode = draw_episode(data, readers)
    parts = data.draw(st.sampled_from(list(FINDERS.values())))(episode)
    streams = data.draw(st.none() | st.lists(st.integers(0, 5), min_size=len(parts), max_size=len(parts)))
    (resolved,) = resolve([pay(parts, 0.0, streams=True if streams is None else streams)], [episode])
    named = range(len(parts)) if streams is None else streams
    assert (resolved.span_streams is None) == (not parts)
    for token, (start, end) in enumerate(episode.offsets.tolist() if parts else []):
        if not episode.agent_mask[token]:
            assert resolved.span_streams[token] == -1
        elif start < end:
            mine = [stream for part, stream in zip(parts, named, strict=True) if part.start < end and part.end > start]
            assert resolved.span_streams[token] == (mine[-1] if mine else 0)


wild = st.floats(0, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 5e-324, 1e-308, 1.0, 1.7e308])


@settings(max_examples=300)
@given(
    scores=st.lists(wild, min_size=1, max_size=40),
    size=st.sampled_from([0.0, 1e-45, 1e-3, 1.0, 1e38]),
    factor=st.floats(-1, 1).filter(lambda factor: abs(factor) > 1e-3),
    rule=st.sampled_from(["even", "none"]),
)
def test_shares_add_up_to_the_total_whatever_the_scores(scores, size, factor, rule):
    total = size * factor
    shares = share_mass(scores, total, when_zero=rule)
    assert shares.shape == (len(scores),)
    assert (shares * np.sign(total) >= 0).all()
    asked = total if any(scores) or rule == "even" else 0.0
    assert abs(math.fsum(shares) - asked) <= 1e-12 * abs(total)
    order = np.argsort(scores)
    assert (np.diff(np.abs(shares)[order]) >= 0).all()  # a higher score never earns less


# --- json_field, written in every way that JSON allows --------------------------------------------------------------------

leaves = st.none() | st.just({}) | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TEXTS)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(st.sampled_from("abc") | st.text(max_size=3), inner))
)


def written(tree, rng: random.Random) -> str:
    """JSON text of a tree, with whitespace and escapes anywhere; a list of pairs is an object, duplicate keys and all."""

    def gap() -> str:
        return "".join(rng.choices(" \t\n\r", k=rng.choice([0, 0, 1, 2])))

    def string(text: str) -> str:
        return json.dumps(text, ensure_ascii=rng.random() < 0.5)

    if isinstance(tree, list) and tree and all(isinstance(item, tuple) for item in tree):
        members = [f"{gap()}{string(key)}{gap()}:{written(value, rng)}" for key, value in tree]
        return f"{gap()}{{{','.join(members)}}}{gap()}"
    if isinstance(tree, dict):
        return f"{gap()}{{{gap()}}}{gap()}"
    if isinstance(tree, list):
        items = [written(item, rng) for item in tree] or [gap()]
        return f"{gap()}[{','.join(items)}]{gap()}"
    return gap() + (string(tree) if isinstance(tree, str) else json.dumps(tree)) + gap()


def paths_of(value, path=()):
    yield path, value
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from paths_of(inner, (*path, key))


@settings(max_examples=80)
@given(tree=trees, rng=st.randoms(use_true_random=True))
def test_every_field_of_a_json_text_reads_back_as_its_value(readers, tree, rng):
    text = written(tree, rng)
    tokenizer = readers[0]
    episode = episode_of(tokenizer, tokenizer.encode(text))
    assert episode.text == text
    for path, value in paths_of(json.loads(text)):
        part = json_field(episode, *path)
        assert part is not None
        inside = text[part.start : part.end]
        assert inside == inside.strip(" \t\n\r")
        assert json.dumps(json.loads(inside)) == json.dumps(value)  # as text, so that NaN equals itself
        assert json_field(episode, *path, "no such key") is None
        assert json_field(episode, *path, 10**6) is None


@settings(max_examples=80)
@given(data=st.data(), tree=trees, rng=st.randoms(use_true_random=True))
def test_a_damaged_json_text_has_a_field_exactly_where_json_reads_it(data, tree, rng):
    text = written(tree, rng)
    position = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:position] + data.draw(st.sampled_from(['"', "[", "{", ",", ""])) + text[position + 1 :]
    try:
        value = json.loads(damaged)
    except ValueError:
        assert json_field(build_episode(damaged)) is None
        assert json_field(build_episode(damaged), 0) is None
        return
    for path, inner in paths_of(value):
        part = json_field(build_episode(damaged), *path)
        assert part is not None
        assert json.dumps(json.loads(damaged[part.start : part.end])) == json.dumps(inner)


def test_a_turn_without_characters_can_be_paid_on_its_last_token():
    offsets, mask = [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3)], [True, True, False, True, False]
    episode = replace(build_episode("abc", offsets, mask), turns=np.array([0, 0, 0, 1, 1]))
    assert pay_turns(episode, [2.0, -0.5]).tolist() == [0, 2.0, 0, -0.5, 0]
    (resolved,) = resolve([pay_turns(episode, [2.0, -0.5])], [episode])
    assert float(resolved.token_rewards.sum()) == 1.5
    with pytest.raises(ValueError, match="2 turns of the agent and 3 rewards"):
        pay_turns(episode, [1.0] * 3)
