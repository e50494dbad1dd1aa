"""Infos of arrays and infos of objects: two forms of the same endings and releases."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from late_kit import judge, step_ahead

import textgym
from textgym import PromptTask, Release, dropped, release, releases, symbol_tokenizer
from textgym.info import Ending, endings
from textgym.integrations.cleanrl import FinishedEpisodes
from textgym.vector_wrappers import RecordEpisodeStatistics, TransformTokenRewards
from textgym.wrappers import Clip

MODES = list(AutoresetMode)
LETTERS = symbol_tokenizer([*"abcdefgh."])
EOS, C, H = 1, 4, 9


def make(infos, mode, num_envs=3, **options):
    task = PromptTask(
        ["a", "bc", "def"],
        LETTERS,
        judge,
        weights={},
        max_new_tokens=5,
        max_response_tokens=9,
        length_limit="truncate",
        success_fn=lambda episode: "b" in episode.text,
        turn_stop=["."],
        reply_fn=lambda episode: None if "c" in episode.text else "e",
    )
    return textgym.TextGenVectorEnv(num_envs, task, autoreset_mode=mode, infos=infos, **options)


def same_release(one, other):
    assert {name: type(value) for name, value in vars(one).items()} == {name: type(v) for name, v in vars(other).items()}
    for name, value in vars(one).items():
        np.testing.assert_array_equal(getattr(other, name), value, err_msg=name)
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(other, name).dtype
            assert not value.flags.writeable
            assert not getattr(other, name).flags.writeable


def read(infos, num_envs):
    """What an environment of N slots says, by every reader."""
    found = [release(infos, slot=slot) for slot in range(num_envs)]
    assert [item.slot for item in releases(infos)] == [item.slot for item in found if item is not None]
    return releases(infos), endings(infos), dropped(infos)


def same_texts(arrays, objects):
    """Texts lie under the same keys in both."""
    for name in ("prompt", "text", "ended_by", "_prompt", "_text", "_ended_by"):
        assert (name in arrays) == (name in objects)
        if name in arrays:
            np.testing.assert_array_equal(np.asarray(arrays[name]), np.asarray(objects[name]))
    for name in ("final_info", "late"):
        if name in arrays and ("text" in arrays[name] or name == "final_info"):
            same_texts(arrays[name], objects[name])
            np.testing.assert_array_equal(np.asarray(arrays[f"_{name}"]), np.asarray(objects[f"_{name}"]))


def no_array_but(infos, allowed):
    for key, value in infos.items():
        if isinstance(value, dict):
            no_array_but(value, allowed)
        else:
            assert key in allowed or isinstance(value, list | bool), key


def play(pair, seed, steps, on_step):
    """Step both alike, so that late releases come in the step after their ends."""
    arrays, objects = pair
    num_envs = arrays.num_envs
    arrays.reset(seed=seed)
    objects.reset(seed=seed)
    rng = np.random.default_rng(seed)
    idle = np.zeros(num_envs, dtype=bool)
    for _ in range(steps):
        actions = rng.integers(2, len(LETTERS), size=num_envs)
        actions[rng.random(num_envs) < 0.25] = EOS
        native = arrays.unwrapped
        out = []
        for envs in pair:
            given_actions = torch.from_numpy(actions) if isinstance(native.as_output(actions), torch.Tensor) else actions
            if native.releases_late:
                envs.unwrapped._late._pool.wait(0)
            out.append(step_ahead(envs, given_actions) if native.releases_late else envs.step(given_actions))
        for one, other in zip(out[0][:4], out[1][:4], strict=True):
            assert type(one) is type(other)
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        on_step(out[0][4], out[1][4])
        idle |= np.asarray(out[0][2] | out[0][3])
        if native.autoreset_mode is AutoresetMode.DISABLED and (idle.all() or rng.random() < 0.5) and idle.any():
            for envs in pair:
                envs.reset(options={"reset_mask": idle.copy()})
            idle[:] = False
    rest = [sorted(envs.drain(), key=lambda item: item.episode_id) for envs in pair]
    for one, other in zip(*rest, strict=True):
        same_release(one, other)
    arrays.close()
    objects.close()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    mode=st.sampled_from(MODES),
    output=st.sampled_from(["numpy", "torch"]),
    workers=st.sampled_from([0, 1]),
    info_text=st.booleans(),
)
def test_both_kinds_say_the_same(seed, mode, output, workers, info_text):
    options = {"output": output, "info_text": info_text, "reward_workers": workers}
    if workers:
        options["on_reward_error"] = "drop"
    pair = [make(kind, mode, **options) for kind in ("arrays", "objects")]
    if not workers:
        for envs in pair:  # without workers a text that cannot be judged ends the step
            envs.rules.task._reward_fn = lambda episodes: judge_all(episodes)
    seen = []

    def look(arrays, objects):
        (one, ended, gone), (other, as_ended, as_gone) = read(arrays, 3), read(objects, 3)
        assert ended == as_ended
        assert {type(ending) for ending in as_ended} <= {Ending}
        assert [[type(value) for value in ending] for ending in ended] == [[type(v) for v in ending] for ending in as_ended]
        assert gone == as_gone
        for a, b in zip(one, other, strict=True):
            assert type(b) is Release
            same_release(a, b)
        assert bool(arrays) == bool(objects)
        source, as_source = arrays.get("final_info", arrays), objects.get("final_info", objects)
        assert ("release_pending" in source) == ("release_pending" in as_source) == (bool(ended) and bool(workers))
        assert ("final_info" in arrays) == ("final_info" in objects) == (mode is AutoresetMode.SAME_STEP and bool(ended))
        if "final_obs" in arrays:
            assert type(arrays["final_obs"]) is type(objects["final_obs"])
        if info_text:
            same_texts(arrays, objects)
        texts = {"prompt", "text", "ended_by", "_prompt", "_text", "_ended_by", "_late"} if info_text else set()
        no_array_but(objects, texts | {"_final_info", "final_obs", "_final_obs"})
        seen.append((len(one), len(ended)))

    play(pair, seed, 40, look)
    assert sum(count for count, _ in seen) > 3
    assert sum(count for _, count in seen) > 3


def judge_all(episodes):
    return [-1.0 if "h" in episode.text else judge([episode])[0] for episode in episodes]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    mode=st.sampled_from(MODES),
    output=st.sampled_from(["numpy", "torch"]),
    workers=st.sampled_from([0, 1]),
)
def test_wrappers_write_the_same_around_both_kinds(seed, mode, output, workers):
    def wrapped(kind):
        envs = make(kind, mode, output=output, reward_workers=workers)
        envs.rules.task._reward_fn = judge_all
        return RecordEpisodeStatistics(TransformTokenRewards(envs, Clip(0.75)))

    pair = [wrapped(kind) for kind in ("arrays", "objects")]
    seen = []

    def look(arrays, objects):
        for one, other in zip(releases(arrays), releases(objects), strict=True):
            same_release(one, other)
            seen.append(one.ledger.accounts["clip"])
        assert endings(arrays) == endings(objects)
        assert ("episode" in arrays) == ("_episode" in arrays) == ("episode" in objects) == ("_episode" in objects)
        if "episode" in arrays:
            for key in ("r", "l"):
                assert type(arrays["episode"][key]) is type(objects["episode"][key])
                np.testing.assert_array_equal(np.asarray(arrays["episode"][key]), np.asarray(objects["episode"][key]))
            np.testing.assert_array_equal(np.asarray(arrays["_episode"]), np.asarray(objects["_episode"]))

    play(pair, seed, 40, look)
    assert any(seen)
    assert pair[0].episode_count == pair[1].episode_count > 3
    assert list(pair[0].return_queue) == list(pair[1].return_queue)
    assert list(pair[0].length_queue) == list(pair[1].length_queue)
    assert pair[0]._seconds.keys() == pair[1]._seconds.keys() == set()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("infos", ["arrays", "objects"])
def test_statistics_forget_what_is_dropped_in_any_slot(infos):
    options = {"infos": infos, "reward_workers": 1, "on_reward_error": "drop", "num_envs": 4}
    envs = RecordEpisodeStatistics(make(mode=AutoresetMode.SAME_STEP, **options))
    envs.reset(seed=0)
    for token in (H, C):  # after a "c" nobody replies
        envs.step(np.array([2, 2, token, 2]))
    step_ahead(envs, np.array([2, 2, EOS, 2]))
    envs.unwrapped._late._pool.wait(0)
    assert list(envs._seconds) == [(2, 2)]
    assert dropped(envs.step(np.full(4, 2))[4]) == [2]
    assert envs._seconds == {}
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_objects_in_infos_are_the_environments_own(mode):
    """Nothing is written and read back: who takes the episodes has the very same releases."""
    envs = make("objects", mode, keep_episodes=True, output="torch")
    envs.reset(seed=0)
    envs.step(torch.tensor([C, 2, 2]))
    infos = envs.step(torch.tensor([EOS, 2, 2]))[4]
    source = infos.get("final_info", infos)
    assert set(source) == {"ended", "released"}
    assert [item is kept for item, (_, kept) in zip(source["released"], envs.take_episodes(), strict=True)] == [True]
    releases(infos).clear()  # a reader's list is its own
    endings(infos).clear()
    assert len(releases(infos)) == len(endings(infos)) == 1


def test_objects_read_with_the_reader_of_one_environment_are_told():
    for infos in ({"ended": [Ending(0, 0, 1, False)], "release_pending": True}, {"released": []}):
        with pytest.raises(ValueError, match=r"read it with releases\(info\) or release\(info, slot=i\)"):
            release(infos)


@pytest.mark.parametrize("kind", ["object", None, True, ["arrays"], ""])
def test_another_kind_is_told_what_there_is(kind):
    with pytest.raises(
        ValueError, match=r"infos is .*; allowed are 'arrays', .* and 'objects', for a driver in the same process"
    ):
        gym.make_vec("TextGen-v0", num_envs=2, infos=kind)


def test_make_vec_and_its_spec_keep_the_kind():
    envs = gym.make_vec("TextGen-v0", num_envs=2, infos="objects")
    assert envs.unwrapped.infos == gym.make_vec(envs.spec).unwrapped.infos == "objects"
    assert gym.make_vec("TextGen-v0", num_envs=2).unwrapped.infos == "arrays"
    with pytest.raises(ValueError, match="unexpected keyword argument 'infos'"):
        gym.make("TextGen-v0", infos="objects")


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_finished_episodes_of_the_cleanrl_loop_take_both_and_refuse_late_ones(mode):
    batches = []
    for kind in ("arrays", "objects"):
        envs = textgym.TextGenVectorEnv(2, "copying", autoreset_mode=mode, infos=kind)
        episodes = FinishedEpisodes(envs)
        obs, _ = envs.reset(seed=0)
        for number in range(20):
            actions = np.full(2, EOS if number % 4 == 3 else 2)
            after, _, _, _, infos = envs.step(actions)
            episodes.add(obs, actions, np.zeros(2), np.zeros(2), infos)
            obs = after
        batches.append(episodes.batch())
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one, other)
    late = make("objects", mode, num_envs=2, reward_workers=1)
    late.reset(seed=0)
    episodes = FinishedEpisodes(late)
    late.step(np.full(2, C))
    infos = step_ahead(late, np.full(2, EOS))[4]
    with pytest.raises(ValueError, match="make the environment with reward_workers=0"):
        episodes.add(np.zeros((2, 2)), np.zeros(2), np.zeros(2), np.zeros(2), infos)
    late.drain()
    late.close()
