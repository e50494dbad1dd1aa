"""The native vector door: the same as Gymnasium's SyncVectorEnv of scalar doors, step for step."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import textgym
from textgym import PromptTask, Span, releases

MODES = list(AutoresetMode)
NUMBERS = ("episode_id", "group_id")  # counted differently by design: slot + N x count against count


def judge(episodes):
    """Rewards of every kind, by what the text is: dense, spans with streams, criteria, scalar."""
    out = []
    for episode in episodes:
        kind = len(episode.ids) % 4
        if kind == 0 and episode.text:
            out.append([Span(0, len(episode.text), 0.5, stream=1)])
        elif kind == 1:
            out.append([float(i) / 8 for i in range(len(episode.ids))])
        elif kind == 2:
            out.append({"length": float(len(episode.ids)), "a": float(episode.text.count("a"))})
        else:
            out.append(-1.0)
    return out


def task(tokenizer, **kwargs):
    prompts = ["a", "bc", "def", "h.", "gg"]
    return PromptTask(prompts, tokenizer, judge, **{"max_new_tokens": 6, "stop": ["b."], **kwargs})


def sync(tokenizer, num_envs, mode, observation="tokens", **kwargs):
    def make():
        return textgym.TextGenEnv(task(tokenizer, **kwargs), observation=observation, info_text=True)

    return SyncVectorEnv([make] * num_envs, autoreset_mode=mode)


def native(tokenizer, num_envs, mode, observation="tokens", output="numpy", info_text=True, device="cpu", **kwargs):
    return textgym.TextGenVectorEnv(
        num_envs,
        task(tokenizer, **kwargs),
        autoreset_mode=mode,
        observation=observation,
        info_text=info_text,
        output=output,
        device=device,
    )


def same(a, b, path="info"):
    """Equal, down to shapes and dtypes; numbers of episodes apart."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key.removeprefix("_") not in NUMBERS or key.startswith("_"):
                same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y, path)
    elif isinstance(a, np.ndarray):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), path
        for x, y in zip(a, b, strict=True) if a.dtype == object else [(a, b)]:
            if isinstance(x, dict):
                same(x, y, path)
            else:
                np.testing.assert_array_equal(x, y, err_msg=path)
    else:
        assert a == b, path


def random_actions(rng, num_envs, size):
    actions = rng.integers(size, size=num_envs)
    actions[rng.random(num_envs) < 0.15] = 1  # end-of-text, so that ends are ragged
    return actions


@pytest.mark.parametrize("observation", ["tokens", "dict"])
@pytest.mark.parametrize("limit", ["terminate", "truncate"])
@pytest.mark.parametrize("mode", MODES)
def test_native_equals_sync_of_scalar_doors_step_for_step(letters, mode, limit, observation):
    theirs = sync(letters, 5, mode, observation, length_limit=limit)
    ours = native(letters, 5, mode, observation, length_limit=limit)
    assert theirs.observation_space == ours.observation_space
    assert theirs.action_space == ours.action_space
    same(theirs.reset(seed=11), ours.reset(seed=11))
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(1000):
        actions = random_actions(rng, 5, len(letters))
        expected, got = theirs.step(actions), ours.step(actions)
        for name, a, b in zip(("obs", "reward", "terminated", "truncated", "info"), expected, got, strict=True):
            same(a, b, name)
        done = expected[2] | expected[3]
        ends += done.sum()
        if mode is AutoresetMode.DISABLED and done.any():
            same(theirs.reset(options={"reset_mask": done}), ours.reset(options={"reset_mask": done}))
    assert ends > 500
    assert theirs.np_random_seed == ours.np_random_seed


@pytest.mark.parametrize("mode", MODES)
def test_scalar_door_equals_one_native_slot(letters, mode):
    env = textgym.TextGenEnv(task(letters), info_text=True)
    envs = native(letters, 1, AutoresetMode.DISABLED)
    obs, _ = env.reset(seed=4)
    np.testing.assert_array_equal(obs, envs.reset(seed=4)[0][0])
    rng = np.random.default_rng(1)
    for _ in range(1000):
        action = random_actions(rng, 1, len(letters))
        obs, reward, terminated, truncated, info = env.step(int(action[0]))
        got = envs.step(action)
        np.testing.assert_array_equal(obs, got[0][0])
        assert (reward, terminated, truncated) == (got[1][0], got[2][0], got[3][0])
        one, other = textgym.release(info), textgym.release(got[4], slot=0)
        assert (one is None) == (other is None)
        if one is not None:
            for name in vars(one):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            np.testing.assert_array_equal(env.reset()[0], envs.reset()[0][0])


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # the host's memory, and a device like any other
@pytest.mark.parametrize("observation", ["tokens", "dict"])
@pytest.mark.parametrize("mode", MODES)
def test_torch_output_equals_numpy_output(letters, mode, observation, device):
    plain = native(letters, 4, mode, observation, info_text=False)
    other = native(letters, 4, mode, observation, output="torch", device=device, info_text=False)

    def equal(a, b):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                if key == "final_obs":
                    for slot in np.flatnonzero(a["_final_obs"]):
                        row = {k: v[slot] for k, v in b[key].items()} if isinstance(b[key], dict) else b[key][slot]
                        equal(a[key][slot], row)
                else:
                    equal(a[key], b[key])
        else:
            assert isinstance(b, torch.Tensor)
            np.testing.assert_array_equal(a, b.numpy())
            assert str(b.dtype).removeprefix("torch.") == str(a.dtype)

    equal(plain.reset(seed=2)[0], other.reset(seed=2)[0])
    rng = np.random.default_rng(0)
    for _ in range(300):
        actions = random_actions(rng, 4, len(letters))
        expected, got = plain.step(actions), other.step(torch.from_numpy(actions))
        for a, b in zip(expected, got, strict=True):
            equal(a, b)
        assert [vars(r).keys() for r in releases(expected[4])] == [vars(r).keys() for r in releases(got[4])]
        for a, b in zip(releases(expected[4]), releases(got[4]), strict=True):
            np.testing.assert_array_equal(a.token_rewards, b.token_rewards)
            assert (a.slot, a.episode_id) == (b.slot, b.episode_id)
        done = expected[2] | expected[3]
        if mode is AutoresetMode.DISABLED and done.any():
            mask = torch.from_numpy(done)
            equal(
                plain.reset(options={"reset_mask": done})[0],
                other.reset(options={"reset_mask": mask})[0],
            )


def test_a_step_in_which_nothing_runs_is_an_error_not_an_endless_silence(letters):
    envs = native(letters, 2, AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step(np.array([1, 1]))
    with pytest.raises(gym.error.ResetNeeded, match=r"every episode has ended; .*reset_mask"):
        envs.step(np.array([2, 2]))


def test_disabled_ignores_ended_slots_until_they_are_reset(letters):
    envs = native(letters, 2, AutoresetMode.DISABLED)
    envs.reset(seed=0)
    obs, _, terminated, _, info = envs.step(np.array([1, 2]))
    assert (terminated.tolist(), len(releases(info))) == ([True, False], 1)
    after, reward, terminated, _, info = envs.step(np.array([-99, 2]))  # whatever it is, it is ignored
    np.testing.assert_array_equal(obs[0], after[0])
    assert (reward.tolist(), terminated.tolist(), releases(info)) == ([0, 0], [False, False], [])
    options = {"reset_mask": np.array([True, False])}
    fresh, _ = envs.reset(options=options)
    assert list(options) == ["reset_mask"]  # the caller's options are never changed
    np.testing.assert_array_equal(fresh[1], after[1])
    assert (fresh[0] >= 0).sum() <= 3


@pytest.mark.parametrize("mode", MODES)
def test_every_episode_is_released_exactly_once(letters, mode):
    envs = native(letters, 3, mode)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    seen, total, paid = [], 0.0, 0.0
    for _ in range(300):
        _, reward, terminated, truncated, info = envs.step(random_actions(rng, 3, len(letters)))
        paid += reward.sum()
        ended = releases(info)
        assert [r.slot for r in ended] == np.flatnonzero(terminated | truncated).tolist()
        seen += [r.episode_id for r in ended]
        total += sum(float(r.token_rewards.sum()) for r in ended)
        if mode is AutoresetMode.DISABLED and ended:
            envs.reset(options={"reset_mask": terminated | truncated})
    assert len(seen) == len(set(seen)) > 100
    assert all(episode_id % 3 in range(3) for episode_id in seen)
    assert total == pytest.approx(paid)


def test_slots_of_a_group_see_the_same_prompts(letters):
    def prompts(group_size):
        envs = textgym.TextGenVectorEnv(
            4, task(letters), group_size=group_size, autoreset_mode=AutoresetMode.DISABLED, keep_episodes=True
        )
        envs.reset(seed=3)
        for _ in range(5):
            envs.step(np.ones(4, dtype=int))
            envs.reset()
        return envs.take_episodes()

    grouped = prompts(2)
    by_group: dict[int, set[str]] = {}
    for episode, release in grouped:
        by_group.setdefault(release.group_id, set()).add(episode.prompt.text)
    assert len(by_group) == 10
    assert all(len(texts) == 1 for texts in by_group.values())
    alone = prompts(1)
    assert [r.group_id for _, r in alone] == [r.episode_id for _, r in alone]
    with pytest.raises(ValueError, match="multiple of group_size"):
        textgym.TextGenVectorEnv(4, task(letters), group_size=3)


def test_episodes_are_kept_only_on_request(letters):
    envs = textgym.TextGenVectorEnv(2, task(letters), keep_episodes=True)
    envs.reset(seed=0)
    envs.step(np.array([1, 2]))
    ((episode, release),) = envs.take_episodes()
    assert (episode.ids.tolist(), release.slot, envs.take_episodes()) == ([1], 0, [])
    with pytest.raises(ValueError, match="keep_episodes=True"):
        native(letters, 1, AutoresetMode.DISABLED).take_episodes()


def test_make_vec_gives_the_native_door():
    envs = gym.make_vec("TextGen-v0", num_envs=3, masses=(1.0, 0.0))
    assert isinstance(envs, textgym.TextGenVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    again = gym.make_vec(envs.spec)
    assert (again.num_envs, again.rules.task.masses) == (3, (1.0, 0.0))
    for mode in ("sync", "async"):
        other = gym.make_vec("textgym:TextGen-v0", num_envs=2, vectorization_mode=mode)
        other.reset(seed=0)
        other.step(np.array([1, 2]))
        other.close()


def test_max_episode_steps_is_another_name_of_the_length_limit(letters):
    def make(**kwargs):
        return textgym.TextGenVectorEnv(1, prompts=["a"], tokenizer=letters, reward_fn=lambda e: [0.0], **kwargs)

    assert make(max_episode_steps=3).rules.max_response_tokens == 3
    assert make(max_episode_steps=3, max_new_tokens=3).rules.max_response_tokens == 3
    with pytest.raises(ValueError, match="two names of one limit"):
        make(max_episode_steps=3, max_new_tokens=4)


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("actions", [[0.5, 1.0], [1], [[1, 2]], [True, False], [1, 99], [-1, 1]])
def test_wrong_actions_are_refused_and_nothing_is_written(letters, output, actions):
    envs = native(letters, 2, AutoresetMode.SAME_STEP, output=output, info_text=False)
    before = envs.reset(seed=0)[0]
    with pytest.raises(ValueError, match=r"action"):
        envs.step(np.array(actions))
    assert (before >= 0).sum() == (envs._store.observation() >= 0).sum()


def test_wrong_resets_are_refused(letters):
    envs = native(letters, 2, AutoresetMode.DISABLED)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.array([1, 1]))
    for mask in (np.array([True]), np.array([1, 0]), np.zeros(2, dtype=bool), [True, 0]):
        with pytest.raises(ValueError, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="seed has 1 entries"):
        envs.reset(seed=[1])
    with pytest.raises(ValueError, match="no option"):
        envs.reset(options={"prompts": "a"})


def test_wrong_outputs_are_refused(letters):
    with pytest.raises(ValueError, match="'numpy' and 'torch'"):
        native(letters, 1, AutoresetMode.DISABLED, output="jax")
    with pytest.raises(ValueError, match="use output='torch'"):
        textgym.TextGenVectorEnv(1, task(letters), device="cuda")


def test_a_neighbour_slot_does_not_change_a_slots_prompts_F34(letters):
    few, many = native(letters, 1, AutoresetMode.SAME_STEP), native(letters, 3, AutoresetMode.SAME_STEP)
    assert np.array_equal(few.reset(seed=5)[0][0], many.reset(seed=5)[0][0])
    rng = np.random.default_rng(0)
    for _ in range(50):
        actions = random_actions(rng, 3, len(letters))
        assert np.array_equal(few.step(actions[:1])[0][0], many.step(actions)[0][0])


def prompts_by_group(envs, rounds=6, **reset):
    envs.reset(**reset)
    for _ in range(rounds):
        envs.step(np.ones(envs.num_envs, dtype=int))
        envs.reset()
    groups: dict[int, set[str]] = {}
    for episode, release in envs.take_episodes():
        groups.setdefault(release.group_id, set()).add(episode.prompt.text)
    return groups


def test_groups_share_prompts_without_a_seed_and_after_a_prompt_was_asked_for(letters):
    def make():
        return textgym.TextGenVectorEnv(
            8, task(letters), group_size=4, autoreset_mode=AutoresetMode.DISABLED, keep_episodes=True
        )

    assert all(len(texts) == 1 for texts in prompts_by_group(make()).values())
    envs = make()
    envs.reset(seed=0)
    envs.reset(options={"prompt": "a", "reset_mask": np.arange(8) < 2})
    envs.reset(options={"reset_mask": np.arange(8) >= 2})
    envs.step(np.ones(8, dtype=int))
    envs.take_episodes()
    assert all(len(texts) == 1 for texts in prompts_by_group(envs).values())
    with pytest.raises(ValueError, match=r"slots of one group .* need the same seed"):
        make().reset(seed=list(range(8)))


class Flaky(PromptTask):
    """Raises where it is told to."""

    where = ""

    def rewards(self, episodes):
        if self.where == "rewards":
            raise RuntimeError("rewards")
        return super().rewards(episodes)

    def ended(self, prompt, ids):
        if self.where == "ended":
            raise RuntimeError("ended")
        return False

    def sample(self, rng):
        if self.where == "sample" and rng.random() < 0.5:
            raise RuntimeError("sample")
        return super().sample(rng)


@pytest.mark.parametrize("where", ["rewards", "ended", "sample"])
@pytest.mark.parametrize("mode", MODES)
def test_after_an_error_of_the_task_steps_ask_for_a_reset_and_never_go_on_silently(letters, mode, where):
    flaky = Flaky(["a", "b"], letters, judge, max_new_tokens=2)
    envs = textgym.TextGenVectorEnv(2, flaky, autoreset_mode=mode)
    envs.reset(seed=0)
    flaky.where = where

    def until_it_raises():
        for _ in range(50):
            envs.step(np.array([1, 2]))
            if mode is AutoresetMode.DISABLED and where == "sample":
                envs.reset(options={"reset_mask": np.array([True, False])})

    if mode is AutoresetMode.DISABLED and where == "sample":
        with pytest.raises(RuntimeError, match="sample"):
            until_it_raises()
        return  # the reset failed; the texts that were running go on
    with pytest.raises(RuntimeError, match=where):
        until_it_raises()
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.array([2, 2]))
    flaky.where = ""
    envs.reset()
    envs.step(np.array([2, 2]))


def test_a_prompt_that_cannot_be_drawn_leaves_the_running_texts_alone(letters):
    flaky = Flaky(["a", "b"], letters, judge, max_new_tokens=4)
    envs = textgym.TextGenVectorEnv(4, flaky, autoreset_mode=AutoresetMode.DISABLED, keep_episodes=True)
    envs.reset(seed=0)
    flaky.where = "sample"

    def many_resets():
        for _ in range(20):
            envs.reset()

    with pytest.raises(RuntimeError, match="sample"):
        many_resets()
    obs, _, _, _, _ = envs.step(np.ones(4, dtype=int))
    for episode, release in envs.take_episodes():
        assert list(episode.prompt.ids) == obs[release.slot, : len(episode.prompt.ids)].tolist()


def test_max_episode_steps_works_for_every_task():
    assert gym.make_vec("TextGen-v0", num_envs=2, max_episode_steps=14).rules.max_response_tokens == 14


def test_autoreset_modes_go_by_value_and_by_name(letters):
    for name in ("SameStep", "SAME_STEP", AutoresetMode.SAME_STEP):
        assert native(letters, 1, name).autoreset_mode is AutoresetMode.SAME_STEP
    with pytest.raises(ValueError, match="allowed are NextStep, SameStep, Disabled"):
        native(letters, 1, "sometimes")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(letters):
    with pytest.raises(ValueError, match="sees no CUDA device"):
        textgym.TextGenVectorEnv(1, task(letters), output="torch", device="cuda")
