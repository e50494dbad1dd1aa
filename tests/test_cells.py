import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import Episode, Release, TextTokenizer
from textgym.view.cells import Cell, cells, summary

EMOJI_BYTES = ["ð", "Ł", "ĺ", "Ģ"]  # how a byte-level vocabulary writes the four bytes of 😀


def released(episode: Episode, rewards, streams=None) -> Release:
    count = len(episode.ids)
    streams = np.zeros(count, np.int64) if streams is None else np.array(streams)
    rewards = np.array(rewards, np.float32)
    return Release(episode.episode_id, 0, rewards, streams, episode.agent_mask, count, True, False, False, 0)


@pytest.fixture(scope="module")
def by_bytes(byte_bpe):
    return TextTokenizer(byte_bpe, eos_token_id=byte_bpe.token_to_id("<|endoftext|>"))


@pytest.fixture
def emoji_episode(make_episode, by_bytes):
    ids = np.array([by_bytes.backend.token_to_id(piece) for piece in ["h", *EMOJI_BYTES, "w", "<|endoftext|>"]])
    text, offsets = by_bytes.offsets(ids)
    assert text == "h😀w"
    return replace(make_episode(text, offsets.tolist()), ids=ids)


def test_a_cell_holds_the_text_the_reward_the_writer_and_the_stream_of_its_token(make_episode, letters):
    episode = make_episode("ab", agent_mask=[True, False])
    assert cells(episode, released(episode, [0.5, 0.0], [1, -1]), letters) == [
        Cell("a", 0.5, True, 1),
        Cell("b", 0.0, False, -1),
    ]


def test_rewards_and_streams_are_unknown_while_the_text_grows(make_episode, letters):
    episode = make_episode("ab", agent_mask=[True, False])
    assert cells(episode, None, letters) == [Cell("a", None, True, -1), Cell("b", None, False, -1)]


def test_a_text_of_no_tokens_has_no_cells(make_episode, letters):
    assert cells(make_episode(""), None, letters) == []


def test_line_breaks_and_tabs_are_left_as_they_are(make_episode, letters):
    assert [cell.text for cell in cells(make_episode("a\n\t"), None, letters)] == ["a", "\n", "\t"]


def test_bytes_of_one_character_write_it_once_on_the_last_of_them(emoji_episode, by_bytes):
    expected = ["h", "", "", "", "😀", "w", "<|endoftext|>"]
    assert [cell.text for cell in cells(emoji_episode, None, by_bytes)] == expected
    unpaid = released(emoji_episode, [1, 0, 0, 0, 1, 0, 0])
    assert [cell.text for cell in cells(emoji_episode, unpaid, by_bytes)] == expected


def test_a_rewarded_byte_of_a_split_character_stays_visible_as_its_piece(emoji_episode, by_bytes):
    shown = cells(emoji_episode, released(emoji_episode, [0, 0.5, 0, -1, 2, 0, 0]), by_bytes)
    assert [cell.text for cell in shown] == ["h", "ð", "", "ĺ", "😀", "w", "<|endoftext|>"]
    assert [cell.reward for cell in shown] == [0, 0.5, 0, -1, 2, 0, 0]


def test_a_token_keeps_the_characters_that_it_does_not_share(make_episode, letters):
    episode = make_episode("abc", offsets=[(0, 2), (1, 3)])
    assert [cell.text for cell in cells(episode, None, letters)] == ["a", "bc"]


@given(st.lists(st.integers(0, 300), max_size=30))
def test_unrewarded_cells_of_tokens_with_characters_read_as_the_text(by_bytes, ids):
    ids = [i % by_bytes.vocab_size for i in ids]
    text, offsets = by_bytes.offsets(ids)
    episode = Episode(None, np.array(ids, np.int64), text, offsets, np.ones(len(ids), bool), np.zeros(len(ids), int), "eos")
    shown = cells(episode, None, by_bytes)
    assert len(shown) == len(ids)
    assert "".join(cell.text for cell, (start, end) in zip(shown, offsets, strict=True) if end > start) == text


def test_the_release_of_another_episode_is_refused(make_episode, letters):
    other = released(make_episode("abc"), [0, 0, 0])
    with pytest.raises(ValueError, match=r"3 token rewards but episode 7 has 2 response tokens; pass the release of this"):
        cells(make_episode("ab"), other, letters)


def test_the_summary_names_streams_only_where_there_are_several(make_episode, letters):
    episode = make_episode("abc", agent_mask=[True, False, True])
    one = cells(episode, released(episode, [1, 0, -0.25], [0, -1, 0]), letters)
    assert summary(one, {}) == "return +0.75"
    two = cells(episode, released(episode, [1, 0, -0.25], [0, -1, 1]), letters)
    assert summary(two, {"fluency": 0.5}) == "return +0.75   stream 0 +1   stream 1 -0.25   fluency +0.5"


def test_rewards_that_cancel_in_float32_sum_to_zero(make_episode, letters):
    episode = make_episode("abc")
    assert summary(cells(episode, released(episode, [0.1, 0.2, -0.3]), letters), {}) == "return +0"


def test_importing_cells_loads_neither_rich_nor_pillow():
    check = "import textgym.view.cells, sys; found = {'rich', 'PIL'} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
