"""Releases that come later: all of them, once, by episode_id, in every autoreset mode."""

import gc
import pickle
import threading
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from late_kit import step_ahead

import textgym
from textgym import PromptTask, Span, releases
from textgym.info import dropped, endings


class Gate(PromptTask):
    """Rewards wait until the gate is open; what holds a bad text raises."""

    def __init__(self, tokenizer, bad="h", **kwargs):
        super().__init__(["a", "bc"], tokenizer, self.judge, **{"max_new_tokens": 6, **kwargs})
        self.open = threading.Event()
        self.open.set()
        self.bad = bad

    def judge(self, episodes):
        self.open.wait()
        if any(self.bad in episode.text for episode in episodes):
            raise ZeroDivisionError("bad text")
        spans = [[Span(0, len(e.text), float(len(e.text)), stream=1)] if e.text else -1.0 for e in episodes]
        return [{"length": item} for item in spans]


def make(letters, mode=AutoresetMode.SAME_STEP, num_envs=4, bad="#", **kwargs):
    task = Gate(letters, bad)
    return task, textgym.TextGenVectorEnv(num_envs, task, autoreset_mode=mode, reward_workers=1, **kwargs)


def actions_of(rng, num_envs, size):
    actions = rng.integers(size, size=num_envs)
    actions[rng.random(num_envs) < 0.2] = 1
    return actions


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_release_comes_once_and_is_what_it_would_have_been_at_once(letters, mode, output):
    _task, envs = make(letters, mode, output=output, keep_episodes=True, info_text=True)
    at_once = textgym.TextGenVectorEnv(4, Gate(letters, "#"), autoreset_mode=mode)
    envs.reset(seed=3)
    at_once.reset(seed=3)
    rng = np.random.default_rng(0)
    expected, got, pending = {}, {}, 0
    for _ in range(300):
        actions = actions_of(rng, 4, len(letters))
        obs, reward, terminated, truncated, info = envs.step(torch.from_numpy(actions) if output == "torch" else actions)
        other = at_once.step(actions)
        np.testing.assert_array_equal(np.asarray(obs), other[0])
        np.testing.assert_array_equal(np.asarray(terminated | truncated), other[2] | other[3])
        assert not reward.any()  # nothing is paid by step: the releases are the reward
        source = info.get("final_info", info)
        ends = endings(info)
        if ends:
            pending += len(ends)
            assert "token_rewards" not in source
            assert [bool(source["release_pending"][e.slot]) for e in ends] == [True] * len(ends)
            assert [(e.slot, e.episode_id, e.num_tokens) for e in ends] == [
                (r.slot, r.episode_id, r.num_tokens) for r in releases(other[4])
            ]
        late = releases(info)
        assert len({r.slot for r in late}) == len(late)  # at most one row per slot
        got |= {r.episode_id: r for r in late}
        expected |= {r.episode_id: r for r in releases(other[4])}
        if mode is AutoresetMode.DISABLED and ends:
            mask = other[2] | other[3]
            envs.reset(options={"reset_mask": mask})
            at_once.reset(options={"reset_mask": mask})
    assert got  # some came while the environment went on
    got |= {r.episode_id: r for r in envs.drain()}
    assert envs.drain() == []
    assert pending == len(got) == len(expected) > 200
    for episode_id, release in expected.items():
        for name in vars(release):
            np.testing.assert_array_equal(getattr(got[episode_id], name), getattr(release, name), err_msg=name)
    assert sorted(r.episode_id for _, r in envs.take_episodes()) == sorted(expected)
    envs.close()


def test_the_layout_is_that_of_an_ended_episode_with_a_leading_axis_of_slots(letters):
    _, envs = make(letters, num_envs=3)
    envs.reset(seed=0)
    step_ahead(envs, np.array([2, 1, 2]))
    envs._late._pool.wait(0)
    info = envs.step(np.array([2, 2, 2]))[4]
    late = info["late"]
    assert info["_late"].tolist() == late["_token_rewards"].tolist() == [False, True, False]
    assert (late["token_rewards"].shape, late["token_rewards"].dtype) == ((3, 6), np.float32)
    assert (late["token_streams"].shape, late["agent_mask"].dtype) == ((3, 6), np.bool_)
    assert late["criteria/length"].tolist() == [0, -1, 0]
    assert late["episode_id"].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="vector environment"):
        textgym.release(info)
    assert textgym.release(info, slot=1).episode_id == 1
    envs.close()


def test_a_step_waits_while_too_many_are_pending(letters):
    task, envs = make(letters, max_pending=4)
    envs.reset(seed=0)
    task.open.clear()
    everyone = np.ones(4, dtype=int)
    envs.step(everyone)  # four are pending: allowed
    through = threading.Event()
    stepper = threading.Thread(target=lambda: (envs.step(everyone), through.set()), daemon=True)
    stepper.start()
    assert not through.wait(0.2)
    task.open.set()
    assert through.wait(20)
    assert envs._late._pool.unfinished <= 4
    assert envs._late.num_due >= 4
    stepper.join()
    envs.drain()
    envs.close()


def test_an_error_is_raised_in_the_next_step_and_nothing_else_is_lost(letters):
    _, envs = make(letters, num_envs=2, bad="h")
    h = int(letters.encode("h")[0])
    envs.reset(seed=0)
    envs.step(np.array([h, 2]))
    step_ahead(envs, np.array([1, 1]))
    envs._late._pool.wait(0)
    before = envs._store.observation()
    with pytest.raises(ZeroDivisionError) as error:
        envs.step(np.array([2, 2]))
    assert "the reward of episode 0 failed" in "".join(error.value.__notes__)
    np.testing.assert_array_equal(envs._store.observation(), before)  # no token was appended
    info = envs.step(np.array([2, 2]))[4]  # one may go on
    assert [r.episode_id for r in releases(info)] == [1]
    envs.close()


def test_drain_raises_too_and_keeps_what_is_due(letters):
    _, envs = make(letters, num_envs=3, bad="h")
    h = int(letters.encode("h")[0])
    envs.reset(seed=0)
    envs.step(np.array([h, 2, h]))
    step_ahead(envs, np.array([1, 1, 1]))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            envs.drain()
    assert [r.episode_id for r in envs.drain()] == [1]
    envs.close()


def test_dropped_episodes_are_named_and_counted_never_a_silent_zero_F30(letters):
    _, envs = make(letters, num_envs=2, bad="h", on_reward_error="drop")
    h = int(letters.encode("h")[0])
    envs.reset(seed=0)
    envs.step(np.array([h, 2]))
    step_ahead(envs, np.array([1, 1]))
    envs._late._pool.wait(0)
    with pytest.warns(RuntimeWarning, match="episode 0 is dropped, its reward failed: ZeroDivisionError: bad text"):
        info = envs.step(np.array([2, 2]))[4]
    assert dropped(info) == [0]
    assert [r.episode_id for r in releases(info)] == [1]
    assert envs.num_dropped == 1
    assert dropped(envs.step(np.array([2, 2]))[4]) == []
    envs.close()


def test_closing_with_releases_due_warns_and_after_drain_does_not(letters):
    _, envs = make(letters)
    envs.reset(seed=0)
    step_ahead(envs, np.array([1] * 4))
    with pytest.warns(RuntimeWarning, match="4 releases still due; call drain"):
        envs.close()
    _, envs = make(letters)
    envs.reset(seed=0)
    step_ahead(envs, np.array([1] * 4))
    assert len(envs.drain()) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.close()


def test_what_a_worker_has_done_and_nobody_took_yet_is_due(letters):
    _, envs = make(letters)
    envs.reset(seed=0)
    step_ahead(envs, np.array([1] * 4))
    envs._late._pool.wait(0)
    assert envs._late.num_due == 4
    envs.drain()
    assert envs._late.num_due == 0
    envs.close()


def test_processes_reward_the_shipped_tasks():
    with_process = gym.make_vec("textgym/ThreeSentences-v0", num_envs=2, reward_workers=1, reward_worker_kind="process")
    at_once = gym.make_vec("textgym/ThreeSentences-v0", num_envs=2)
    for envs in (with_process, at_once):
        envs.reset(seed=0)
    rng = np.random.default_rng(0)
    expected, got = [], []
    for _ in range(60):
        actions = actions_of(rng, 2, envs.single_action_space.n)
        expected += releases(at_once.step(actions)[4])
        got += releases(with_process.step(actions)[4])
    got += with_process.drain()
    late = {release.episode_id: release for release in got}
    assert len(late) == len(got) == len(expected) > 5
    for release in expected:
        np.testing.assert_array_equal(late[release.episode_id].token_rewards, release.token_rewards)
    with_process.close()


def test_wrong_options_are_refused(letters):
    with pytest.raises(ValueError, match="allowed are 'raise' and 'drop'"):
        make(letters, on_reward_error="ignore")
    with pytest.raises(ValueError, match="max_pending is -1"):
        make(letters, max_pending=-1)
    with pytest.raises(ValueError, match="give reward_workers=1"):
        textgym.TextGenVectorEnv(1, Gate(letters), reward_timeout=1.0)


def test_an_environment_with_workers_says_that_it_cannot_be_pickled(letters):
    _task, envs = make(letters)
    with pytest.raises(TypeError, match="reward workers cannot be copied or pickled"):
        pickle.dumps(envs._late._pool)
    envs.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("num_envs", [1, 5, 16])
def test_metadata_and_rewards_stay_with_their_episode_however_batches_are_cut_F35(letters, num_envs, workers):
    prompts = [textgym.Prompt("abcdefgh"[i], metadata={"answer": i, "other": -i}) for i in range(8)]
    task = PromptTask(
        prompts, letters, lambda episodes: [float(e.prompt.metadata["answer"]) for e in episodes], max_new_tokens=4
    )
    envs = textgym.TextGenVectorEnv(num_envs, task, reward_workers=workers, keep_episodes=True)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(120):
        envs.step(actions_of(rng, num_envs, len(letters)))
    envs.drain()
    played = envs.take_episodes()
    assert len(played) > 20
    for episode, release in played:
        assert episode.prompt.text == "abcdefgh"[episode.prompt.metadata["answer"]]
        assert float(release.token_rewards[-1]) == episode.prompt.metadata["answer"] == -episode.prompt.metadata["other"]
        assert (episode.episode_id, episode.episode_id % num_envs) == (release.episode_id, release.slot)
    ids = sorted(release.episode_id for _, release in played)
    assert len(set(ids)) == len(ids)
    envs.close()


def workers():
    return {thread for thread in threading.enumerate() if thread.name == "textgym-reward"}


def test_an_environment_that_nobody_closes_leaves_no_worker(letters):
    before = workers()
    _, envs = make(letters)
    envs.reset(seed=0)
    (mine,) = workers() - before
    del envs
    gc.collect()
    mine.join(20)
    assert not mine.is_alive()
    for options in ({"max_pending": -1}, {"on_reward_error": "zzz"}, {"max_pending": 1.5}):
        with pytest.raises(ValueError, match="is "):
            make(letters, **options)
    assert workers() <= before


def test_stepping_after_close_says_so(letters):
    _, envs = make(letters)
    envs.reset(seed=0)
    envs.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        envs.step(np.ones(4, dtype=int))
    assert envs.drain() == []


def test_a_reward_function_that_only_does_for_one_episode_is_told_of(letters):
    task = PromptTask(["a"], letters, lambda episodes: [1.0], max_new_tokens=3)
    envs = textgym.TextGenVectorEnv(4, task, reward_workers=1)
    envs.reset(seed=0)

    def play():  # whether the worker is done in the step or after it
        return [*textgym.releases(envs.step(np.ones(4, dtype=int))[4]), *envs.drain()]

    with pytest.warns(RuntimeWarning, match=r"none of them alone, .* returned 1 rewards for 4"):
        assert len(play()) == 4
    envs.close()


def test_warnings_that_are_errors_lose_no_release_and_keep_no_worker(letters):
    _, envs = make(letters, bad="h", on_reward_error="drop")
    h = int(letters.encode("h")[0])
    envs.reset(seed=0)
    envs.step(np.array([h, 2, 2, 2]))
    step_ahead(envs, np.array([1] * 4))
    with pytest.raises(RuntimeWarning, match="episode 0 is dropped"):
        envs.drain()
    assert sorted(release.episode_id for release in envs.drain()) == [1, 2, 3]
    step_ahead(envs, np.array([1] * 4))
    with pytest.raises(RuntimeWarning, match="still due"):
        envs.close()
    assert envs._late._pool._closed
    envs.close()
