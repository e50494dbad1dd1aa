"""What render gives through both doors, and what nobody pays for who does not ask."""

import io
import itertools
import re
import subprocess
import sys
import threading
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from late_kit import step_ahead

import textgym
from textgym import PromptTask
from textgym.render import RENDER_FPS, RENDER_MODES, Renderer
from textgym.view.image import image_frame
from textgym.view.terminal import ansi_frame

EOS = 1
SAME_STEP, NEXT_STEP, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def ramp(episodes):
    return [[float(i + 1) for i in range(len(episode.ids))] for episode in episodes]


def task(letters, **kwargs):
    return PromptTask(["h.", "gg"], letters, ramp, **{"max_new_tokens": 4, **kwargs})


def scalar(letters, mode=None, **kwargs):
    return textgym.TextGenEnv(task(letters, **kwargs), render_mode=mode)


def native(letters, mode=None, num_envs=2, autoreset_mode=DISABLED, **kwargs):
    return textgym.TextGenVectorEnv(num_envs, task(letters), render_mode=mode, autoreset_mode=autoreset_mode, **kwargs)


def plain(frame):
    """A frame without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", frame)


def tokens(letters, text, eos=True):
    return [*letters.encode(text).tolist(), *([EOS] if eos else [])]


def is_coloured(image):
    """Whether a picture has a hue: whatever is coloured in a frame is a reward."""
    return bool((image.max(axis=-1).astype(int) - image.min(axis=-1) > 12).any())


def test_ansi_is_the_text_so_far_and_rewards_appear_only_at_the_release(letters):
    env = scalar(letters, "ansi")
    env.reset(options={"prompt": "ab"})
    assert plain(env.render()) == "ab"
    for action, text in zip(tokens(letters, "cd", eos=False), ("abc", "abcd"), strict=True):
        env.step(action)
        assert plain(env.render()) == text
        assert "\x1b[1;37;48" not in env.render()
    env.step(EOS)
    frame = env.render()
    assert isinstance(frame, str)
    assert plain(frame) == "abc(+1)d(+2)</s>(+3)\nepisode 0: return +6"
    assert "\x1b[1;37;48" in frame  # white on the colour of the reward
    assert env.render() == frame
    env.reset(options={"prompt": "ab"})
    assert plain(env.render()) == "ab"  # the next episode starts without them


def test_rgb_array_keeps_its_shape_and_dtype_over_an_episode_and_is_coloured_at_its_end(letters):
    env = scalar(letters, "rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for action in tokens(letters, "abc"):
        env.step(action)
        frames.append(env.render())
    assert {(frame.shape, frame.dtype) for frame in frames} == {((360, 640, 3), np.dtype(np.uint8))}
    assert [is_coloured(frame) for frame in frames] == [False] * 4 + [True]
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


def test_frames_are_fresh_arrays(letters):
    env = scalar(letters, "rgb_array")
    env.reset(seed=0)
    frame = env.render()
    frame[:] = 0
    assert env.render().any()


@pytest.mark.parametrize(("mode", "view"), [("ansi", ansi_frame), ("rgb_array", image_frame)])
def test_a_frame_is_what_the_view_draws_of_episode_and_release(letters, mode, view):
    envs = native(letters, mode, keep_episodes=True)
    envs.reset(seed=0)
    for actions in zip(tokens(letters, "ab"), tokens(letters, "cd"), strict=True):
        envs.step(np.array(actions))
    frames = envs.render()
    for (episode, release), frame in zip(envs.take_episodes(), frames, strict=True):
        np.testing.assert_array_equal(frame, view(episode, release, envs.rules.tokenizer))


def test_human_writes_an_episode_to_standard_output_when_it_is_released(letters, capsys):
    env = scalar(letters, "human")
    env.reset(options={"prompt": "ab"})
    for action in tokens(letters, "cd", eos=False):
        env.step(action)
    assert capsys.readouterr().out == ""  # no terminal: a frame per token would be noise
    assert env.step(EOS)[2]
    assert plain(capsys.readouterr().out) == "abc(+1)d(+2)</s>(+3)\nepisode 0: return +6\n"
    assert env.render() is None
    assert capsys.readouterr().out == ""  # once
    env.reset(options={"prompt": "ab"})
    env.step(EOS)
    assert plain(capsys.readouterr().out) == "ab</s>(+1)\nepisode 1: return +1\n"
    env.close()
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_human_grows_in_place_where_standard_output_is_a_terminal(letters, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    env = scalar(letters, "human")
    env.reset(options={"prompt": "ab"})
    seen = [plain(sys.stdout.getvalue())]
    for action in tokens(letters, "c"):
        before = len(sys.stdout.getvalue())
        env.step(action)
        seen.append(plain(sys.stdout.getvalue()[before:]))
    erase = "\x1b[1A\x1b[J"
    assert seen == ["ab\n", erase + "abc\n", erase + "abc(+1)</s>(+2)\nepisode 0: return +3\n"]
    env.close()


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_rendering_before_a_reset_asks_for_it(letters, mode):
    with pytest.raises(gym.error.ResetNeeded, match=r"there is no text to draw; call reset\(\)"):
        scalar(letters, mode).render()


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_rendering_a_vector_before_a_reset_asks_for_it(letters, mode):
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        native(letters, mode).render()


def test_rendering_a_vector_of_which_some_slots_were_never_reset_asks_for_it(letters):
    envs = native(letters, "ansi")
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        envs.render()


def test_a_mode_that_is_not_there_is_refused_and_those_that_are_are_listed(letters):
    with pytest.raises(ValueError, match="render_mode is 'pdf'; allowed are None, ") as error:
        scalar(letters, "pdf")
    assert set(re.findall(r"'(\w+)'", str(error.value))) == {"pdf", "human", "ansi", "rgb_array"}
    for mode in ("human", "pdf"):
        with pytest.raises(ValueError, match=rf"render_mode is '{mode}'; allowed are None, 'ansi', 'rgb_array'$"):
            native(letters, mode)


def test_through_gym_make_a_wrong_mode_is_warned_of_and_refused():
    with (
        pytest.warns(UserWarning, match="not in the possible render_modes"),
        pytest.raises(ValueError, match="render_mode is 'pdf'; allowed are"),
    ):
        gym.make("TextGen-v0", render_mode="pdf")
    with pytest.raises(ValueError, match="render_mode is 'human'; allowed are None, 'ansi', 'rgb_array'"):
        gym.make_vec("TextGen-v0", num_envs=2, render_mode="human")


def test_the_modes_that_are_said_are_the_modes_that_there_are(letters):
    assert sorted(textgym.TextGenEnv.metadata["render_modes"]) == sorted(RENDER_MODES)
    for mode in textgym.TextGenEnv.metadata["render_modes"]:
        env = scalar(letters, mode)
        assert (env.render_mode, env.metadata["render_fps"]) == (mode, RENDER_FPS)
    for mode in textgym.TextGenVectorEnv.metadata["render_modes"]:
        envs = native(letters, mode)
        assert (envs.render_mode, envs.metadata["render_fps"]) == (mode, RENDER_FPS)
        assert mode in envs.metadata["render_modes"]


@pytest.mark.parametrize("make", [scalar, native])
def test_without_a_render_mode_rendering_warns_and_gives_none(letters, make):
    env = make(letters)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match=r"render\(\) draws nothing without a render_mode; give one .*render_mode='ansi'"):
        assert env.render() is None
    assert env.render_mode is None


def test_a_renderer_without_a_mode_draws_nothing(letters, make_episode):
    renderer = Renderer(None, letters)
    assert renderer.draw(make_episode(), None) is None
    renderer.close()


def assert_same_frame(a, b):
    """Texts are compared without the number of the episode, which the two doors count differently."""
    if isinstance(a, str):
        a, b = (re.sub(r"episode \d+", "episode", plain(frame)) for frame in (a, b))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("autoreset_mode", list(AutoresetMode))
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_the_native_door_draws_what_a_sync_vector_env_of_scalar_doors_draws(letters, autoreset_mode, mode, output):
    theirs = SyncVectorEnv([lambda: scalar(letters, mode)] * 2, autoreset_mode=autoreset_mode)
    ours = native(letters, mode, autoreset_mode=autoreset_mode, output=output)
    theirs.reset(seed=4)
    ours.reset(seed=4)
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(12 if mode == "ansi" else 8):
        actions = np.where(rng.random(2) < 0.3, EOS, rng.integers(2, len(letters), size=2))
        _, _, terminated, truncated, _ = theirs.step(actions)
        ours.step(torch.from_numpy(actions) if output == "torch" else actions)
        frames = ours.render()
        assert isinstance(frames, tuple)
        for a, b in zip(theirs.render(), frames, strict=True):
            assert_same_frame(a, b)
            shown += "return" in b if mode == "ansi" else is_coloured(b)
        done = terminated | truncated
        if autoreset_mode is DISABLED and done.any():
            theirs.reset(options={"reset_mask": done})
            ours.reset(options={"reset_mask": done})
            for a, b in zip(theirs.render(), ours.render(), strict=True):
                assert_same_frame(a, b)
    assert (shown == 0) == (autoreset_mode is SAME_STEP)  # there a slot starts anew at once


def test_under_disabled_an_ended_text_shows_its_rewards_until_its_slot_is_reset(letters):
    envs = native(letters, "ansi")
    envs.reset(options={"prompt": "ab"})
    envs.step(np.array([EOS, 2]))
    assert [plain(frame) for frame in envs.render()] == ["ab</s>(+1)\nepisode 0: return +1", "aba"]
    envs.step(np.array([2, 2]))  # the ended slot does not act
    assert [plain(frame) for frame in envs.render()] == ["ab</s>(+1)\nepisode 0: return +1", "abaa"]
    envs.reset(options={"prompt": "cd", "reset_mask": np.array([True, False])})
    assert [plain(frame) for frame in envs.render()] == ["cd", "abaa"]


def test_a_late_release_is_shown_where_its_text_still_stands(letters):
    envs = native(letters, "ansi", reward_workers=1)
    envs.reset(options={"prompt": "ab"})
    step_ahead(envs, np.array([EOS, 2]))
    assert [plain(frame) for frame in envs.render()] == ["ab</s>", "aba"]
    envs._late._pool.wait(0)
    envs.step(np.array([2, 2]))
    assert [plain(frame) for frame in envs.render()] == ["ab</s>(+1)\nepisode 0: return +1", "abaa"]
    envs.close()


@pytest.mark.parametrize("autoreset_mode", [SAME_STEP, NEXT_STEP])
def test_a_late_release_does_not_hide_the_text_that_grows_in_its_slot_by_now(letters, autoreset_mode):
    envs = native(letters, "ansi", autoreset_mode=autoreset_mode, reward_workers=1)
    envs.reset(seed=0)
    step_ahead(envs, np.array([EOS, 2]))
    envs._late._pool.wait(0)
    infos = envs.step(np.array([3, 2]))[4]
    assert len(textgym.releases(infos)) == 1
    envs.step(np.array([4, 2]))
    growing = plain(envs.render()[0])
    assert "return" not in growing
    assert growing.endswith("bc" if autoreset_mode is SAME_STEP else "c")
    envs.close()


def test_a_late_release_of_an_earlier_text_is_not_shown_on_the_one_that_ended_since(letters):
    gate = threading.Event()

    def waits(episodes):
        gate.wait()
        return ramp(episodes)

    envs = textgym.TextGenVectorEnv(
        2, PromptTask(["h."], letters, waits, max_new_tokens=9), autoreset_mode=DISABLED, render_mode="ansi", reward_workers=1
    )
    envs.reset(options={"prompt": "ab"})
    envs.step(np.array([EOS, 2]))
    envs.reset(options={"prompt": "cd", "reset_mask": np.array([True, False])})
    envs.step(np.array([EOS, 2]))
    gate.set()
    envs._late._pool.wait(0)
    shown = []
    for episode_id in (0, 2):  # one release per slot and step, the older one first
        infos = envs.step(np.array([2, 2]))[4]
        assert [release.episode_id for release in textgym.releases(infos)] == [episode_id]
        shown.append(plain(envs.render()[0]))
    assert shown == ["cd</s>", "cd</s>(+1)\nepisode 2: return +1"]
    envs.close()


def test_asynchronous_vectors_render_too():
    envs = gym.make_vec("textgym:TextGen-v0", 2, "async", render_mode="ansi")
    other = gym.make_vec("textgym:TextGen-v0", 2, render_mode="ansi")
    envs.reset(seed=0)
    other.reset(seed=0)
    assert isinstance(envs, AsyncVectorEnv)
    for env in (envs, other):
        env.step(np.array([2, 3]))
    assert envs.render() == other.render() != ("", "")
    envs.close()


def test_gymnasiums_lists_of_frames(letters):
    env = gym.make("TextGen-v0", render_mode="rgb_array_list")
    env.reset(seed=0)
    env.step(2)
    frames = env.render()
    assert [frame.shape for frame in frames] == [(360, 640, 3)] * 2
    env = gym.make("TextGen-v0", render_mode="ansi_list")
    env.reset(seed=0)
    env.step(2)
    assert [type(frame) for frame in env.render()] == [str, str]


@pytest.mark.parametrize("mode", [None, *RENDER_MODES])
@pytest.mark.parametrize("env_id", ["TextGen-v0", "textgym/GuessNumber-v0"])
def test_gymnasiums_checker_accepts_every_render_mode_without_a_warning(env_id, mode, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, render_mode=mode).unwrapped)


def test_gymnasiums_video_recorder_writes_a_film_of_an_episode(letters, tmp_path):
    pytest.importorskip("moviepy")
    env = gym.wrappers.RecordVideo(scalar(letters, "rgb_array"), str(tmp_path / "films"), episode_trigger=lambda n: True)
    for _ in range(2):
        env.reset(seed=0)
        for action in tokens(letters, "ab"):
            env.step(action)
        assert len(env.recorded_frames) in (0, 4)  # the start and three tokens; none are left where it is written already
    env.close()
    films = sorted((tmp_path / "films").glob("*.mp4"))
    assert [film.name for film in films] == ["rl-video-episode-0.mp4", "rl-video-episode-1.mp4"]
    assert all(film.read_bytes()[4:8] == b"ftyp" for film in films)


@pytest.mark.skipif(not hasattr(gym.wrappers.vector, "RecordVideo"), reason="this Gymnasium films no vectors")
@pytest.mark.parametrize("autoreset_mode", list(AutoresetMode))
def test_gymnasiums_video_recorder_of_vectors_writes_a_film(letters, tmp_path, autoreset_mode):
    pytest.importorskip("moviepy")
    envs = native(letters, "rgb_array", autoreset_mode=autoreset_mode)
    with warnings.catch_warnings():
        if autoreset_mode is SAME_STEP:
            warnings.filterwarnings("ignore", "(?s).*will not contain the last frame")
        films = gym.wrappers.vector.RecordVideo(envs, str(tmp_path / "films"), episode_trigger=lambda n: n == 0)
    films.reset(seed=0)
    films.step(np.array([2, 2]))
    assert {frame.shape for frame in films.recorded_frames} <= {(720, 640, 3), (360, 1280, 3)}
    assert len(films.recorded_frames) == 2
    films.step(np.array([EOS, EOS]))
    films.close()
    (film,) = (tmp_path / "films").glob("*.mp4")
    assert film.read_bytes()[4:8] == b"ftyp"


PLAY = """
import gymnasium as gym, numpy as np, sys, textgym, textgym.wrappers, textgym.vector_wrappers, textgym.time_limits
{code}
found = {{"rich", "PIL"}} & set(sys.modules)
assert found == {expected}, found
"""
SCALAR = """
env = gym.make("TextGen-v0", render_mode={mode!r})
env.reset(seed=0)
while not any(env.step(env.action_space.sample())[2:4]):
    pass
env.close()
"""
NATIVE = """
envs = gym.make_vec("TextGen-v0", num_envs=2, render_mode={mode!r})
envs.reset(seed=0)
for _ in range(20):
    envs.step(envs.action_space.sample())
envs.close()
"""


@pytest.mark.parametrize("code", [SCALAR, NATIVE])
@pytest.mark.parametrize(("mode", "expected"), [(None, set()), ("ansi", {"rich"}), ("rgb_array", {"PIL"})])
def test_a_view_is_loaded_only_where_its_mode_is_asked_for(code, mode, expected):
    script = PLAY.format(code=code.format(mode=mode), expected=expected or "set()")
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
