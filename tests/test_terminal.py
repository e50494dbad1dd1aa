import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import textgym
from textgym import Episode, Prompt, Release
from textgym.view.terminal import TerminalView, ansi_frame, token_heatmap


def released(episode: Episode, rewards, streams=None, criteria=None) -> Release:
    count = len(episode.ids)
    streams = np.zeros(count, np.int64) if streams is None else np.array(streams)
    rewards = np.array(rewards, np.float32)
    return Release(
        episode.episode_id, 0, rewards, streams, episode.agent_mask, count, True, False, False, 0, criteria=criteria or {}
    )


def prompted(episode: Episode, text: str) -> Episode:
    return replace(episode, prompt=Prompt(text, np.array([0])))


def plain(ansi: str) -> str:
    """Without colours; any other escape code fails."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", ansi)
    assert "\x1b" not in text
    return text


class FakeTerminal(io.StringIO):
    """A terminal that knows two codes, cursor up and erase below; nothing on it is ever scrolled away."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines, row = [""], 0
        for up, erase, written in re.findall(r"\x1b\[(\d+)A|(\x1b\[J)|(\n|[^\n\x1b]+|\x1b\[[0-9;]*m)", self.getvalue()):
            if up:
                row -= int(up)
                assert row >= 0
            elif erase:
                lines[row:] = [""]
            elif written == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] += plain(written)
        return lines[:-1]


@pytest.fixture
def terminal(monkeypatch) -> FakeTerminal:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "21", "LINES": "6"}.items():
        monkeypatch.setenv(name, value)
    return FakeTerminal()


def test_rewarded_tokens_are_coloured_and_numbered_and_special_ones_shown():
    env = textgym.TextGenEnv("number_duel")
    env.reset(seed=0)
    task = env.rules.task
    kept = []
    original = task.rewards
    task.rewards = lambda episodes: kept.extend(episodes) or original(episodes)
    for action in [*task.tokenizer.encode("A: 40\nB: db\n"), 1]:
        info = env.step(int(action))[4]
    text = token_heatmap(kept[0], textgym.release(info), task.tokenizer)
    assert text.plain == "A: 40(+1)⏎B: db(-1)⏎</s>"
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "rgb(0,200,0)" in styles["0"]
    assert "rgb(200,0,0)" in styles["b"]
    Console(file=io.StringIO()).print(text)


def test_tokens_of_the_environment_are_dim(make_episode):
    episode = make_episode("abc", agent_mask=[True, False, True])
    release = textgym.Release(0, 0, np.zeros(3, np.float32), np.array([0, -1, 0]), episode.agent_mask, 3, True, False, False, 0)
    text = token_heatmap(episode, release, textgym.symbol_tokenizer(["a"]))
    assert [str(span.style) for span in text.spans if str(span.style)] == ["dim"]


def test_a_growing_text_has_no_colours_but_dim_for_the_environment(make_episode, letters):
    text = token_heatmap(make_episode("a\nb", agent_mask=[True, True, False]), None, letters)
    assert text.plain == "a⏎b"
    assert [str(span.style) for span in text.spans if str(span.style)] == ["dim"]


def test_a_text_of_no_tokens_is_empty(make_episode, letters):
    assert token_heatmap(make_episode(""), None, letters).plain == ""
    assert ansi_frame(make_episode(""), None, letters) == ""


def test_a_frame_has_the_prompt_dim_then_the_response_then_the_totals(make_episode, letters):
    episode = prompted(make_episode("a\nb"), "say:")
    frame = ansi_frame(episode, released(episode, [0, 1, -0.25], [0, 0, 1], {"fluency": 0.5}), letters)
    assert frame.startswith("\x1b[2msay:\x1b[0m")
    assert "\x1b[1;37;48;2;0;200;0m⏎\x1b[0m\x1b[32m(+1)\x1b[0m\n" in frame
    assert plain(frame).split("\n") == [
        "say:a⏎(+1)",
        "b(-0.25)",
        "episode 7: return +0.75   stream 0 +1   stream 1 -0.25   fluency +0.5",
    ]


def test_a_frame_of_a_growing_text_has_no_reward_colours_and_no_totals(make_episode, letters):
    episode = prompted(make_episode("abc", agent_mask=[True, False, True]), "say:")
    assert ansi_frame(episode, None, letters) == "\x1b[2msay:\x1b[0ma\x1b[2mb\x1b[0mc"


def test_a_frame_is_the_same_in_every_environment(make_episode, letters, monkeypatch):
    episode = make_episode("abc " * 50)
    release = released(episode, [1, *[0] * 199])
    frame = ansi_frame(episode, release, letters)
    for name, value in {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "33", "LINES": "4"}.items():
        monkeypatch.setenv(name, value)
    assert ansi_frame(episode, release, letters) == frame


@pytest.mark.parametrize("text", ["abc def. " * 60, "a" * 500, "漢字 " * 100])
def test_no_line_of_a_frame_is_wider_than_asked(make_episode, letters, text):
    episode = make_episode(text)
    lines = plain(ansi_frame(episode, released(episode, [0.5] * len(text)), letters, width=40)).split("\n")
    assert len(lines) > 3
    assert max(cell_len(line) for line in lines) <= 40


def test_a_width_that_is_too_small_is_refused(make_episode, letters):
    with pytest.raises(ValueError, match="width is 3; allowed are 10 terminal columns or more"):
        ansi_frame(make_episode("a"), None, letters, width=3)


def test_characters_that_a_terminal_obeys_are_shown_instead(make_episode, letters):
    episode = prompted(make_episode("\x1b[2J\r\x9b\x7f\t"), "\x1b]0;title\x07")
    assert ansi_frame(episode, None, letters) == "\x1b[2m␛]0;title␇\x1b[0m␛[2J␍\ufffd␡⇥"


def test_a_log_gets_one_frame_per_episode(make_episode, letters, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # CI sets it; it makes no terminal of a log
    log = io.StringIO()
    view = TerminalView(letters, log)
    for episode_id in (3, 4):
        for length in range(1, 4):
            view.show(make_episode("abc"[:length], episode_id=episode_id), None)
        assert log.getvalue().count("episode") == episode_id - 3
        ended = make_episode("abc", episode_id=episode_id)
        view.show(ended, released(ended, [0, 0, 1]))
        view.show(ended, released(ended, [0, 0, 1]))
    view.close()
    expected = "abc(+1)\nepisode 3: return +1\nabc(+1)\nepisode 4: return +1\n"
    assert plain(log.getvalue()) == expected


def test_the_stream_is_the_standard_output_of_the_moment(make_episode, letters, capsys):
    episode = make_episode("abc")
    TerminalView(letters).show(episode, released(episode, [0, 0, 1]))
    assert plain(capsys.readouterr().out) == "abc(+1)\nepisode 7: return +1\n"


def test_a_stream_that_cannot_write_a_character_gets_a_question_mark(make_episode, letters):
    raw = io.BytesIO()
    episode = make_episode("a\n")
    stream = io.TextIOWrapper(raw, encoding="ascii")
    TerminalView(letters, stream).show(episode, released(episode, [0, 0]))
    assert raw.getvalue() == b"a?\nepisode 7: return +0\n"


def test_a_terminal_shows_the_growing_text_in_place(make_episode, letters, terminal):
    view = TerminalView(letters, terminal)
    for text in ("a", "ab\n", "ab\ncd", "ab\ncd " + "e" * 25):
        view.show(make_episode(text), None)
    assert terminal.screen() == ["ab⏎", "cd ", "e" * 21, "eeee"]
    episode = make_episode("ab\n")
    view.show(episode, released(episode, [0, 0.5, 0]))
    assert terminal.screen() == ["ab(+0.5)⏎", "episode 7: return ", "+0.5"]
    view.show(make_episode("h", episode_id=8), None)
    assert terminal.screen()[-2:] == ["+0.5", "h"]
    view.close()
    view.show(make_episode("g", episode_id=9), None)
    assert terminal.screen()[-3:] == ["+0.5", "h", "g"]


def test_a_text_taller_than_the_terminal_shows_its_newest_lines_and_ends_in_full(make_episode, letters, terminal):
    view = TerminalView(letters, terminal)
    text = "".join(f"{i}\n" for i in range(30))
    for length in range(0, len(text), 7):
        view.show(make_episode(text[:length]), None)
        assert len(terminal.screen()) <= 5
    view.show(make_episode(text + "z"), None)
    assert terminal.screen() == ["… earlier lines hidde", "27⏎", "28⏎", "29⏎", "z"]
    episode = make_episode(text)
    view.show(episode, released(episode, [0] * len(text)))
    assert terminal.screen() == [*(f"{i}⏎" for i in range(30)), "episode 7: return +0"]


def test_a_terminal_that_cannot_move_its_cursor_is_written_to_once(make_episode, letters, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    view = TerminalView(letters, terminal)
    view.show(make_episode("a"), None)
    assert terminal.getvalue() == ""
    view.show(make_episode("a"), released(make_episode("a"), [0]))
    assert terminal.screen() == ["a", "episode 7: return +0"]
