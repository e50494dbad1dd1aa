"""Wrappers around a vector environment: as the scalar one in each slot, and as Gymnasium counts episodes."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import GYMNASIUM_COUNTS_SAME_STEP
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics as GymnasiumStatistics
from late_kit import judge, step_ahead

import textgym
from textgym import Prompt, PromptTask, releases, wrappers
from textgym.info import dropped, endings
from textgym.tasks.guess_number import GuessNumber
from textgym.vector_wrappers import RecordEpisodeStatistics, TransformTokenRewards
from textgym.wrappers import Clip, Scale

MODES = list(AutoresetMode)
SAME_STEP, NEXT_STEP, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
EOS = 1


def task(tokenizer, **kwargs):
    return PromptTask(["a", "bc", "def", "gg"], tokenizer, judge, **{"max_new_tokens": 6, "weights": {"a": 2.0}, **kwargs})


def native(tokenizer, mode=SAME_STEP, num_envs=4, **kwargs):
    return textgym.TextGenVectorEnv(num_envs, task(tokenizer), autoreset_mode=mode, **kwargs)


def random_actions(rng, num_envs, size):
    actions = rng.integers(size, size=num_envs)
    actions[(rng.random(num_envs) < 0.2) | (actions == 9)] = EOS  # 9 is "h"
    return actions


def test_the_letter_that_cannot_be_judged_is_token_9(letters):
    assert letters.encode("h").tolist() == [9]


def equal(one, other, but=()):
    """Two releases hold the same."""
    for name in vars(one).keys() - set(but) - {"ledger"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.ledger.asked == other.ledger.asked
    assert dict(one.ledger.accounts) == pytest.approx(dict(other.ledger.accounts), abs=1e-12)


def adds_up(release):
    paid = float(release.token_rewards.sum(dtype=np.float64))
    return release.ledger.asked == pytest.approx(paid + sum(release.ledger.accounts.values()), abs=1e-4)


def same(a, b, path="info", but=("episode_id", "group_id")):
    """Equal, down to types, shapes and dtypes; numbers of episodes apart, which the two doors count differently."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - set(but):
            same(a[key], b[key], f"{path}.{key}", but)
    elif a.dtype == object:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=path)
    else:
        assert (a.shape, a.dtype) == (b.shape, b.dtype), path
        np.testing.assert_array_equal(a, b, err_msg=path)


def sync_of_scalars(tokenizer, mode, wrap):
    return SyncVectorEnv([lambda: wrap(textgym.TextGenEnv(task(tokenizer)))] * 4, autoreset_mode=mode)


def twice(env, wrapper):
    return wrapper(wrapper(env, Clip(1)), Scale(0.5), "half")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", ["native", "sync"])
def test_it_equals_the_scalar_wrapper_in_each_slot_of_a_sync_vector_env(letters, mode, host):
    theirs = sync_of_scalars(letters, mode, lambda env: twice(env, wrappers.TransformTokenRewards))
    inner = native(letters, mode) if host == "native" else sync_of_scalars(letters, mode, lambda env: env)
    ours = twice(inner, TransformTokenRewards)
    but = ("episode_id", "group_id") if host == "native" else ()
    np.testing.assert_array_equal(theirs.reset(seed=5)[0], ours.reset(seed=5)[0])
    rng = np.random.default_rng(0)
    ended, changed = 0, 0
    for _ in range(200):
        actions = random_actions(rng, 4, len(letters))
        expected, got = theirs.step(actions), ours.step(actions)
        for name, a, b in zip(("obs", "reward", "terminated", "truncated", "info"), expected, got, strict=True):
            same(a, b, name, but)
        for one, other in zip(releases(expected[4]), releases(got[4]), strict=True):
            equal(one, other, but)
            assert adds_up(other)
            assert got[1][other.slot] == float(other.token_rewards.sum(dtype=np.float64))
            changed += other.ledger.accounts["clip"] != 0 and other.ledger.accounts["half"] != 0
            ended += 1
        done = expected[2] | expected[3]
        if mode is DISABLED and done.any():
            same(theirs.reset(options={"reset_mask": done})[0], ours.reset(options={"reset_mask": done})[0])
    assert ended > 100
    assert changed > 50


@pytest.mark.parametrize("mode", MODES)
def test_it_works_around_an_async_vector_env(mode):
    def make():
        return gym.make("textgym:TextGen-v0", disable_env_checker=True)

    ours = TransformTokenRewards(AsyncVectorEnv([make] * 2, autoreset_mode=mode), Scale(3))
    theirs = SyncVectorEnv([lambda: wrappers.TransformTokenRewards(make(), Scale(3))] * 2, autoreset_mode=mode)
    ours.reset(seed=1)
    theirs.reset(seed=1)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(40):
        actions = rng.integers(ours.single_action_space.n, size=2)
        expected, got = theirs.step(actions), ours.step(actions)
        np.testing.assert_array_equal(expected[1], got[1])
        for one, other in zip(releases(expected[4]), releases(got[4]), strict=True):
            equal(one, other)
            assert "scale" in other.ledger.accounts
            ended += 1
        done = expected[2] | expected[3]
        if mode is DISABLED and done.any():
            theirs.reset(options={"reset_mask": done})
            ours.reset(options={"reset_mask": done})
    assert ended > 4
    ours.close()


@pytest.mark.parametrize("mode", MODES)
def test_torch_output_is_rewritten_as_numpy_output_is(letters, mode):
    plain = TransformTokenRewards(native(letters, mode), Clip(1))
    other = TransformTokenRewards(native(letters, mode, output="torch"), Clip(1))
    plain.reset(seed=2)
    other.reset(seed=2)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(100):
        actions = random_actions(rng, 4, len(letters))
        expected, got = plain.step(actions), other.step(torch.from_numpy(actions))
        assert got[1].dtype == torch.float64
        np.testing.assert_array_equal(expected[1], got[1].numpy())
        source = got[4].get("final_info", got[4])
        assert all(isinstance(value, torch.Tensor) for key, value in source.items())
        for a, b in zip(releases(expected[4]), releases(got[4]), strict=True):
            equal(a, b)
            ended += 1
        done = expected[2] | expected[3]
        if mode is DISABLED and done.any():
            plain.reset(options={"reset_mask": done})
            other.reset(options={"reset_mask": torch.from_numpy(done)})
    assert ended > 50


def play_late(envs, steps=120, seed=3):
    """Play random actions; return the releases by their number, those of the steps and those of drain apart."""
    output = torch.from_numpy if isinstance(envs.reset(seed=seed)[0], torch.Tensor) else np.asarray
    rng = np.random.default_rng(0)
    stepped = {}
    for _ in range(steps):
        actions = random_actions(rng, envs.num_envs, envs.single_action_space.n)
        _, rewards, terminated, truncated, infos = envs.step(output(actions))
        stepped |= {release.episode_id: release for release in releases(infos)}
        if "late" in infos or envs.unwrapped._late is not None:
            assert not np.asarray(rewards).any()
        done = np.asarray(terminated | truncated)
        if envs.unwrapped.autoreset_mode is DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
    return stepped


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_late_releases_are_rewritten_by_step_and_by_drain(letters, mode, output):
    expected = play_late(TransformTokenRewards(native(letters, mode), Clip(1)))
    envs = TransformTokenRewards(native(letters, mode, output=output, reward_workers=1), Clip(1))
    stepped = play_late(envs)
    drained = {release.episode_id: release for release in envs.drain()}
    assert stepped  # some came while the environment went on
    assert not stepped.keys() & drained.keys()
    got = stepped | drained
    assert got.keys() == expected.keys()
    assert len(got) > 50
    for episode_id, release in expected.items():
        equal(release, got[episode_id])
    assert envs.drain() == []
    envs.close()


def test_what_drain_hands_out_is_rewritten(letters):
    envs = TransformTokenRewards(native(letters, num_envs=2, reward_workers=1), Clip(1))
    envs.reset(seed=0)
    envs.step(np.array([2, 2]))
    envs.step(np.array([2, 2]))
    envs.step(np.array([EOS, EOS]))  # three tokens: -3
    for release in envs.drain():
        assert release.token_rewards.tolist() == [0, 0, -1]
        assert dict(release.ledger.accounts) == {"clip": -2.0}
    envs.close()


def test_a_late_release_is_rewritten_in_the_step_that_hands_it_out(letters):
    envs = TransformTokenRewards(native(letters, num_envs=2, reward_workers=1), Clip(1))
    envs.reset(seed=0)
    for actions in ([2, 2], [2, 2], [2, EOS]):
        _, _, _, _, infos = step_ahead(envs, np.array(actions))
    assert endings(infos)[0][:2] == (1, 1)
    envs.unwrapped._late._pool.wait(0)
    _, rewards, _, _, infos = step_ahead(envs, np.array([EOS, 2]))  # slot 0 ends in this very step
    assert [ending.slot for ending in endings(infos)] == [0]
    (release,) = releases(infos)
    assert (release.slot, release.token_rewards.tolist()) == (1, [0, 0, -1])
    assert (rewards.tolist(), infos["_late"].tolist()) == ([0, 0], [False, True])
    envs.drain()
    envs.close()


def test_steps_without_a_release_are_handed_on_as_they_are(letters):
    envs = native(letters)
    wrapped = TransformTokenRewards(envs, Clip(1))
    wrapped.reset(seed=0)
    seen = []
    inner = envs.step
    envs.step = lambda actions: seen.append(inner(actions)) or seen[-1]
    assert all(a is b for a, b in zip(wrapped.step(np.full(4, 2)), seen[0], strict=True))


def test_the_inner_infos_and_rewards_are_not_written_to(letters):
    for mode in (SAME_STEP, NEXT_STEP):
        envs = native(letters, mode)
        wrapped = TransformTokenRewards(envs, Clip(1))
        wrapped.reset(seed=0)
        seen = []
        inner = envs.step
        envs.step = lambda actions, inner=inner, seen=seen: seen.append(inner(actions)) or seen[-1]
        for actions in ([2] * 4, [2] * 4, [EOS] * 4):
            _, rewards, _, _, infos = wrapped.step(np.array(actions))
        assert rewards.tolist() == [-1.0] * 4
        assert seen[-1][1].tolist() == [-3.0] * 4
        assert [release.token_rewards.tolist() for release in releases(seen[-1][4])] == [[0, 0, -3]] * 4
        assert [release.token_rewards.tolist() for release in releases(infos)] == [[0, 0, -1]] * 4
        assert [dict(release.ledger.accounts) for release in releases(seen[-1][4])] == [{}] * 4


def test_slots_that_did_not_end_keep_the_reward_that_other_wrappers_gave_them(letters):
    """Only the slots of releases are rewritten: here the others are marked by a reward of their own."""

    class Mark(gym.vector.VectorWrapper):
        def step(self, actions):
            obs, rewards, terminated, truncated, infos = super().step(actions)
            return obs, np.where(terminated, rewards, 0.25), terminated, truncated, infos

    envs = TransformTokenRewards(Mark(native(letters, num_envs=3)), Clip(1))
    envs.reset(seed=0)
    for actions in ([2, 2, 2], [2, 2, 2], [2, EOS, 2]):
        rewards = envs.step(np.array(actions))[1]
    assert rewards.tolist() == [0.25, -1.0, 0.25]


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_what_is_wrong_with_a_transform_names_the_episode(letters, output):
    def made(transform):
        envs = TransformTokenRewards(native(letters, num_envs=2, output=output), transform, "mine")
        envs.reset(seed=0)
        return envs

    actions = torch.tensor([2, EOS]) if output == "torch" else np.array([2, EOS])
    with pytest.raises(ValueError, match=r"'mine' turned 1 token rewards of episode 1 into an array of shape \(2,\)"):
        made(lambda token_rewards: [1.0, 2.0]).step(actions)
    with pytest.raises(ValueError, match=r"'mine' paid nan on token 0 of episode 1"):
        made(lambda token_rewards: token_rewards * np.nan).step(actions)


def test_a_wrapper_inside_that_changed_the_reward_is_refused(letters):
    envs = gym.wrappers.vector.TransformReward(native(letters, num_envs=2), lambda rewards: rewards - 1)
    envs = TransformTokenRewards(envs, Clip(1))
    envs.reset(seed=0)
    envs.step(np.array([2, 2]))
    with pytest.raises(ValueError, match=r"the token rewards of episode 1 add up to .*: a wrapper inside of this one"):
        envs.step(np.array([2, EOS]))


def test_an_environment_without_workers_owes_nothing_to_drain(letters):
    assert TransformTokenRewards(native(letters), Clip(1)).drain() == []
    assert RecordEpisodeStatistics(native(letters)).drain() == []


# ---------------------------------------------------------------------------------------------------------- statistics


def both_statistics(envs, other, mode, steps=300, reset_rng=None):
    """Play the same in two environments; compare all that the two wrappers write and keep."""
    if mode is SAME_STEP and not GYMNASIUM_COUNTS_SAME_STEP:
        pytest.skip("Gymnasium's wrapper miscounts in this mode before 1.4")
    torchy = isinstance(envs.reset(seed=7)[0], torch.Tensor)
    other.reset(seed=7)
    rng = np.random.default_rng(0)
    written = 0
    for step in range(steps):
        actions = random_actions(rng, envs.num_envs, envs.single_action_space.n)
        got = envs.step(torch.from_numpy(actions) if torchy else actions)
        expected = other.step(actions)
        ours, theirs = got[4], expected[4]
        assert ("episode" in ours) == ("episode" in theirs)
        assert ("_episode" in ours) == ("_episode" in theirs)
        if "episode" in theirs:
            table = {key: np.asarray(value) for key, value in ours["episode"].items()}
            kind = torch.Tensor if torchy else np.ndarray
            assert {type(value) for value in [*ours["episode"].values(), ours["_episode"]]} == {kind}
            assert list(table) == list(theirs["episode"]) == ["r", "l", "t"]
            np.testing.assert_array_equal(np.asarray(ours["_episode"]), theirs["_episode"])
            for key in ("r", "l"):
                np.testing.assert_array_equal(table[key], theirs["episode"][key])
            for key in table:
                assert (table[key].shape, table[key].dtype) == (theirs["episode"][key].shape, theirs["episode"][key].dtype)
            assert (table["t"] >= 0).all()
            assert not table["t"][~theirs["_episode"]].any()
            written += int(theirs["_episode"].sum())
        done = expected[2] | expected[3]
        if mode is DISABLED and (done.any() or step % 17 == 0):
            # now and then a running episode is given up, too: its steps count for nothing
            mask = done | (rng.random(envs.num_envs) < 0.3)
            if mask.any():
                options = {"reset_mask": torch.from_numpy(mask) if torchy else mask.copy()}
                envs.reset(options=options)
                assert list(options) == ["reset_mask"]
                other.reset(options={"reset_mask": mask})
        elif mode is not DISABLED and step % 41 == 40:
            envs.reset()
            other.reset()
    assert written > steps / 3
    assert envs.episode_count == other.episode_count == written
    assert list(envs.return_queue) == list(other.return_queue)
    assert list(envs.length_queue) == list(other.length_queue)
    assert len(envs.time_queue) == len(other.time_queue)
    assert all(seconds >= 0 for seconds in envs.time_queue)


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_those_that_gymnasiums_wrapper_writes(letters, mode, output):
    ours = RecordEpisodeStatistics(native(letters, mode, output=output), buffer_length=50)
    both_statistics(ours, GymnasiumStatistics(native(letters, mode), buffer_length=50), mode)
    assert len(ours.return_queue) == 50


@pytest.mark.parametrize("mode", MODES)
def test_statistics_count_the_steps_of_the_agent_where_the_task_replies(mode):
    def make():
        return textgym.TextGenVectorEnv(3, GuessNumber(), autoreset_mode=mode)

    envs = RecordEpisodeStatistics(make())
    both_statistics(envs, GymnasiumStatistics(make()), mode)
    envs.reset(seed=0, options={"prompt": Prompt("", metadata={"number": 7})})
    five, seven, newline = (int(envs.unwrapped.rules.tokenizer.encode(text)[0]) for text in ("5", "7", "\n"))
    for token in (five, newline, seven, newline):
        infos = envs.step(np.full(3, token))[4]
    assert [release.num_tokens for release in releases(infos)] == [6, 6, 6]  # with a reply of two tokens
    assert infos["episode"]["l"].tolist() == [4, 4, 4]


@pytest.mark.parametrize("mode", [SAME_STEP, NEXT_STEP])
def test_statistics_around_gymnasiums_sync_vector_env(letters, mode):
    ours = RecordEpisodeStatistics(sync_of_scalars(letters, mode, lambda env: env))
    both_statistics(ours, GymnasiumStatistics(sync_of_scalars(letters, mode, lambda env: env)), mode, steps=100)


@pytest.mark.parametrize("mode", MODES)
def test_statistics_see_the_rewards_that_wrappers_inside_of_them_made(letters, mode):
    def made():
        return TransformTokenRewards(native(letters, mode), Clip(0.5))

    both_statistics(RecordEpisodeStatistics(made()), GymnasiumStatistics(made()), mode, steps=100)

    def scaled():
        return gym.wrappers.vector.TransformReward(native(letters, mode), lambda rewards: 3 * rewards)

    both_statistics(RecordEpisodeStatistics(scaled()), GymnasiumStatistics(scaled()), mode, steps=100)


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_statistics_of_late_releases_come_with_them_and_are_the_same(letters, mode, output):
    expected = {}
    plain = native(letters, mode)
    plain.reset(seed=3)
    rng = np.random.default_rng(0)
    envs = RecordEpisodeStatistics(
        TransformTokenRewards(native(letters, mode, output=output, reward_workers=1), Scale(2)), 1000
    )
    envs.reset(seed=3)
    stepped = 0
    for _ in range(120):
        actions = random_actions(rng, 4, len(letters))
        _, _, terminated, truncated, infos = plain.step(actions)
        expected |= {
            release.episode_id: (2 * float(release.token_rewards.sum(dtype=np.float64)), release.num_tokens)
            for release in releases(infos)
        }
        _, _, _, _, infos = envs.step(torch.from_numpy(actions) if output == "torch" else actions)
        late = releases(infos)
        assert ("episode" in infos) == ("_episode" in infos) == bool(late)
        if late:
            mask = np.asarray(infos["_episode"])
            assert np.flatnonzero(mask).tolist() == [release.slot for release in late]
            table = {key: np.asarray(value) for key, value in infos["episode"].items()}
            for release in late:
                paid, count = expected[release.episode_id]
                assert table["r"][release.slot] == pytest.approx(paid, abs=1e-5)
                assert (table["l"][release.slot], table["t"][release.slot] >= 0) == (count, True)
            assert not table["r"][~mask].any()
            assert not table["l"][~mask].any()
            stepped += len(late)
        done = terminated | truncated
        if mode is DISABLED and done.any():
            plain.reset(options={"reset_mask": done})
            envs.reset(options={"reset_mask": done})
    assert 0 < stepped == envs.episode_count
    drained = envs.drain()
    assert envs.episode_count == stepped + len(drained) == len(expected) > 50
    assert sorted(envs.return_queue) == pytest.approx(sorted(paid for paid, _ in expected.values()), abs=1e-5)
    assert sorted(envs.length_queue) == sorted(count for _, count in expected.values())
    assert envs._seconds == {}
    envs.close()


def test_what_is_dropped_has_no_statistics_and_leaves_nothing_behind(letters):
    envs = RecordEpisodeStatistics(native(letters, num_envs=2, reward_workers=1, on_reward_error="drop"))
    envs.reset(seed=0)
    envs.step(np.array([9, 2]))  # "h" cannot be judged
    step_ahead(envs, np.array([EOS, EOS]))
    envs.unwrapped._late._pool.wait(0)
    with pytest.warns(RuntimeWarning, match="episode 0 is dropped, its reward failed: ZeroDivisionError"):
        _, _, _, _, infos = envs.step(np.array([2, 2]))
    assert dropped(infos) == [0]
    assert infos["_episode"].tolist() == [False, True]
    assert (envs.episode_count, list(envs.length_queue), envs._seconds) == (1, [2], {})
    envs.close()


def test_the_clock_of_an_episode_starts_when_its_slot_starts(letters, monkeypatch):
    """Seconds are read off a clock of our own: one tick a step, none in between."""
    now = [0.0]
    monkeypatch.setattr("textgym.vector_wrappers.time.perf_counter", lambda: now[0])

    def times(mode, script):
        envs = RecordEpisodeStatistics(native(letters, mode, num_envs=2))
        out = []
        envs.reset(seed=0)
        for actions, mask in script:
            now[0] += 1.0
            infos = envs.step(np.array(actions))[4]
            out.append(infos["episode"]["t"].tolist() if "episode" in infos else None)
            if mask is not None:
                now[0] += 10.0
                envs.reset(options={"reset_mask": np.array(mask)})
        return out

    ends = [([2, 2], None), ([EOS, 2], None), ([EOS, EOS], None), ([2, EOS], None)]
    assert times(SAME_STEP, ends) == [None, [2, 0], [1, 3], [0, 1]]
    assert times(NEXT_STEP, ends) == [None, [2, 0], [0, 3], None]
    assert times(NEXT_STEP, [*ends, ([EOS, EOS], None)])[-1] == [2, 1]  # slot 0 from step 3 on, slot 1 from step 4 on
    script = [([2, 2], None), ([EOS, 2], [True, False]), ([EOS, EOS], [True, True]), ([EOS, EOS], None)]
    assert times(DISABLED, script) == [None, [2, 0], [1, 13], [1, 1]]


def test_two_of_them_need_two_keys(letters):
    envs = RecordEpisodeStatistics(RecordEpisodeStatistics(native(letters)))
    envs.reset(seed=0)
    envs.step(np.full(4, 2))
    with pytest.raises(ValueError, match="have 'episode' already; use one RecordEpisodeStatistics, or another stats_key"):
        envs.step(np.full(4, EOS))
    envs = RecordEpisodeStatistics(RecordEpisodeStatistics(native(letters)), stats_key="mine")
    envs.reset(seed=0)
    infos = envs.step(np.full(4, EOS))[4]
    assert infos["mine"]["r"].tolist() == infos["episode"]["r"].tolist()
    assert infos["_mine"].tolist() == infos["_episode"].tolist() == [True] * 4


def test_whoever_owes_nothing_hands_out_nothing(letters):
    sync = SyncVectorEnv([lambda: textgym.TextGenEnv(prompts=["a"], tokenizer=letters, reward_fn=lambda e: [0.0] * len(e))])
    assert TransformTokenRewards(sync, Scale(2.0)).drain() == []
    native = gym.make_vec("TextGen-v0", num_envs=2)
    between = gym.wrappers.vector.TransformReward(native, lambda reward: reward)
    assert RecordEpisodeStatistics(TransformTokenRewards(between, Scale(2.0))).drain() == []


def test_a_late_release_that_cannot_be_rewritten_does_not_cost_the_others(letters):
    def fussy(token_rewards):
        if len(token_rewards) == 3:
            raise ZeroDivisionError("three")
        return token_rewards

    task = PromptTask(["a"], letters, lambda episodes: [1.0] * len(episodes), max_new_tokens=4)
    envs = TransformTokenRewards(textgym.TextGenVectorEnv(4, task, reward_workers=1), fussy)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    started, seen, failed = 0, [], 0
    for _ in range(60):
        try:
            infos = envs.step(random_actions(rng, 4, len(letters)))[4]
        except ZeroDivisionError:
            failed += 1
            continue
        seen += [release.episode_id for release in releases(infos)]
        started += len(endings(infos))
    for _ in range(100):
        try:
            seen += [release.episode_id for release in envs.drain()]
            break
        except ZeroDivisionError:
            failed += 1
    assert failed > 3
    assert len(seen) == len(set(seen)) > 20
    counts = {release.num_tokens for release in envs.drain()}
    assert counts == set()
    envs.close()
