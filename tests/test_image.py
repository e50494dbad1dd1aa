import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest

from textgym import Episode, Prompt, Release
from textgym.view import image
from textgym.view.image import image_frame


def released(episode: Episode, rewards, streams=None, criteria=None) -> Release:
    count = len(episode.ids)
    streams = np.zeros(count, np.int64) if streams is None else np.array(streams)
    rewards = np.array(rewards, np.float32)
    return Release(
        episode.episode_id, 0, rewards, streams, episode.agent_mask, count, True, False, False, 0, criteria=criteria or {}
    )


def prompted(episode: Episode, text: str) -> Episode:
    return replace(episode, prompt=Prompt(text, np.array([0])))


def greenness(frame: np.ndarray) -> np.ndarray:
    """Green above red, (height, width); negative where red is above green."""
    return frame[..., 1].astype(int) - frame[..., 0].astype(int)


def columns(mask: np.ndarray) -> np.ndarray:
    return np.flatnonzero(mask.any(axis=0))


def rows(mask: np.ndarray) -> np.ndarray:
    return np.flatnonzero(mask.any(axis=1))


def inked(frame: np.ndarray) -> np.ndarray:
    """Where something is drawn above the footer, (height, width)."""
    return (frame[:-40] < 245).any(axis=2)


def test_a_rewarded_token_stands_on_green_and_a_penalised_one_on_red(make_episode, letters):
    episode = make_episode("abcd")
    hue = greenness(image_frame(episode, released(episode, [0, 2, 0, -1]), letters))
    green, red = columns(hue > 15), columns(hue < -15)
    assert len(green) and len(red)
    assert green.max() < red.min()


def test_a_larger_reward_is_a_stronger_green(make_episode, letters):
    episode = make_episode("a b")
    hue = greenness(image_frame(episode, released(episode, [0.1, 0, 1]), letters))
    small, large = hue[:, :55], hue[:, 55:]
    assert 0 < np.median(small[small > 0]) < np.median(large[large > 0])


def test_the_number_stands_under_its_token(make_episode, letters):
    episode = make_episode("abcd")
    frame = image_frame(episode, released(episode, [0, 0, 0, 0.125]), letters)
    unrewarded = inked(image_frame(episode, released(episode, [0] * 4), letters))
    dark = inked(frame) & (frame[:-40].max(axis=2) < 150)  # letters and number, without the chip
    assert rows(dark).max() > rows(unrewarded).max() + 5
    assert columns(dark[rows(unrewarded).max() + 3 :]).min() > columns(unrewarded[:, :45]).max()  # clear of a and b


def test_a_growing_text_shows_no_colour_and_no_return(make_episode, letters):
    episode = prompted(make_episode("abc\ndef", agent_mask=[True, False] * 3 + [True]), "say:")
    growing = image_frame(episode, None, letters)
    assert (growing == growing[..., :1]).all()  # greys only
    unpaid = image_frame(episode, released(episode, [0] * 7), letters)
    assert (unpaid[:320] == growing[:320]).all()
    assert (unpaid[330:, :200] < 200).any() and not (growing[330:, :200] < 200).any()


def test_the_agent_writes_darker_than_the_environment_and_that_than_the_prompt(make_episode, letters):
    agent = image_frame(make_episode("aaa"), None, letters)
    environment = image_frame(make_episode("aaa", agent_mask=[False] * 3), None, letters)
    prompt = image_frame(prompted(make_episode(""), "aaa"), None, letters)
    assert agent[:320].min() < environment[:320].min() < prompt[:320].min() < 240


def test_the_prompt_stands_at_the_top_before_the_response(make_episode, letters):
    frame = image_frame(prompted(make_episode("h\nh"), "say\nthis "), None, letters)
    dark = (frame[:320] < 80).any(axis=2)
    assert rows(inked(frame)).min() < rows(dark).min()
    assert columns(inked(frame)).min() <= columns(dark).min()


@pytest.mark.parametrize("count", [0, 1, 30, 300, 3000])
def test_frames_have_one_shape_whatever_the_length(make_episode, letters, count):
    episode = make_episode(("abc def. gh\n" * 300)[:count])
    for release in (None, released(episode, np.linspace(-1, 1, count))):
        frame = image_frame(episode, release, letters)
        assert frame.shape == (360, 640, 3)
        assert frame.dtype == np.uint8


def test_a_text_longer_than_the_frame_shows_its_newest_lines_and_says_so(make_episode, letters):
    ending, mark_height = "g\n" * 7 + "h", 25
    short, long = (image_frame(make_episode(text), None, letters) for text in ("a\n" * 5 + ending, "b\n" * 40 + ending))
    assert not (short[mark_height:-40] != long[mark_height:-40]).any()
    assert (short[:mark_height] != long[:mark_height]).any()  # how many lines are hidden
    assert not inked(image_frame(make_episode("a\nb"), None, letters))[:mark_height].any()


def test_a_rewarded_last_token_is_seen_however_long_the_text(make_episode, letters):
    episode = make_episode("abc def. gh\n" * 250)
    assert greenness(image_frame(episode, released(episode, [0] * 2999 + [1]), letters)).max() > 15


@pytest.mark.parametrize("text", ["abc def gh " * 20, "a" * 400, "a" * 60 + " b", " " * 300])
def test_nothing_is_drawn_in_the_margins(make_episode, letters, text):
    for episode in (make_episode(text), make_episode(text, [(0, len(text))]), prompted(make_episode(""), text)):
        for release in (None, released(episode, [1.0] * len(episode.ids))):
            drawn = inked(image_frame(episode, release, letters))
            assert not drawn[:, :18].any() and not drawn[:, -18:].any()


def test_words_of_several_tokens_stay_on_one_line(make_episode, letters):
    filler = "a" * 50 + " "
    assert rows(inked(image_frame(make_episode(filler + "b" * 5), None, letters))).max() < 60
    whole = inked(image_frame(make_episode(filler + "b" * 12), None, letters))
    alone = inked(image_frame(make_episode(filler + "\n" + "b" * 12), None, letters))
    assert (whole[75:] == alone[75:]).all() and whole[75:].any()


def test_special_tokens_are_drawn_as_their_pieces(make_episode, letters):
    plain, ended = make_episode("ab"), make_episode("ab", [(0, 1), (1, 2), (2, 2)])
    ended = replace(ended, ids=np.array([2, 3, letters.eos_token_id]))
    widths = [columns(inked(image_frame(episode, None, letters))).max() for episode in (plain, ended)]
    assert widths[1] > widths[0] + 20


def test_characters_that_the_font_lacks_are_drawn_somehow(make_episode, letters):
    text = "".join(map(chr, range(0x20))) + "é 漢字 😀 שלום \ufffd \U0010ffff \u2028 \x85 e\u0301 \u202e"
    episode = prompted(make_episode(text), text)
    assert inked(image_frame(episode, released(episode, [0.5] * len(text)), letters)).any()


def test_a_long_footer_keeps_clear_of_the_token_count(make_episode, letters):
    episode = make_episode("ab")
    release = released(episode, [1, 1], criteria={f"criterion {i}": 1.0 for i in range(30)})
    footer = image_frame(episode, release, letters)[340:]
    assert (footer[:, 100:500] < 200).any()
    count = columns((footer < 200).any(axis=2))
    assert np.diff(count).max() > 15  # air between the two


def test_the_same_episode_gives_the_same_picture(make_episode, letters):
    episode = make_episode("abc def\n")
    release = released(episode, [0, 1, 0, -1, 0, 0, 0, 0.5])
    assert (image_frame(episode, release, letters) == image_frame(episode, release, letters)).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 641}, "width is 641; allowed are even whole numbers of at least 188 pixels at font_size 18"),
        ({"height": 20}, "height is 20; allowed are even whole numbers of at least"),
        ({"width": 640.0}, "width is 640.0; allowed"),
        ({"font_size": 200}, "font_size is 200; allowed are whole numbers 8..96"),
        ({"font_size": 96, "width": 1280}, "height is 360; allowed"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(make_episode, letters, sizes, message):
    with pytest.raises(ValueError, match=message):
        image_frame(make_episode("a"), None, letters, **sizes)


@pytest.mark.parametrize("font_size", [8, 18, 48])
def test_the_smallest_allowed_frame_shows_a_line(make_episode, letters, font_size):
    least = {}
    for name in ("width", "height"):
        with pytest.raises(ValueError, match=f"{name} is 2;") as refused:
            image_frame(make_episode("a"), None, letters, **{"width": 2000, "height": 2000, name: 2}, font_size=font_size)
        least[name] = int(str(refused.value).partition("at least ")[2].split()[0])
    frame = image_frame(make_episode("a\n" * 5 + "b"), None, letters, **least, font_size=font_size)
    assert frame.shape == (least["height"], least["width"], 3)
    assert (frame < 80).any()


def test_without_pillow_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'textgym\[render\]'"):
        runpy.run_path(image.__file__)
