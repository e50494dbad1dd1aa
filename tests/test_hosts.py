"""Every host of Gymnasium's: whoever plays, wraps, copies or starts an environment, the releases are the same.

Each slot has a script of actions of its own, of which a step takes the next one only where the slot acts. So the n-th
episode of a slot is the same in every host and autoreset mode, and one reference serves for all.
"""

import copy
import functools
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import GYMNASIUM_COUNTS_SAME_STEP
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

import textgym
from textgym import Prompt, PromptTask, Span, releases
from textgym.tasks.guess_number import GuessNumber

MODES = list(AutoresetMode)
SAME_STEP, NEXT_STEP, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
HOSTS = ["sync", "async", "vector_entry_point"]
SEED = 3
LETTERS = textgym.symbol_tokenizer(list("abcdefgh .\n"))


def judge(episodes):
    """Rewards of every kind, from a function that pickle finds by its name."""
    return [
        [Span(0, len(episode.text), 0.5 * len(episode.text), stream=1)]
        if "a" in episode.text
        else {"nothing": -1.0, "length": float(len(episode.ids))}
        for episode in episodes
    ]


PROMPTS = {"prompts": ["a", "bc", "def", "gg", "h."], "tokenizer": LETTERS, "reward_fn": judge, "max_new_tokens": 6}
PLAIN = ("textgym:TextGen-v0", {**PROMPTS, "stop": ["b."]})
TURNS = ("textgym:textgym/GuessNumber-v0", {})
GAMES = pytest.mark.parametrize("game", [pytest.param(PLAIN, id="plain"), pytest.param(TURNS, id="turns")])


def make(game=PLAIN, **kwargs):
    return gym.make(game[0], **game[1], **kwargs)


def make_vec(game, host, mode, num_envs=3, **kwargs):
    """Gymnasium's own vectors take the mode in ``vector_kwargs``, the native one as any other argument."""
    kwargs = {**game[1], **kwargs}
    if host == "vector_entry_point":
        return gym.make_vec(game[0], num_envs, host, autoreset_mode=mode, **kwargs)
    return gym.make_vec(game[0], num_envs, host, vector_kwargs={"autoreset_mode": mode}, **kwargs)


def script(slot, game):
    """Actions of one slot, without end: random tokens, or guesses that are mostly well formed."""
    rng = np.random.default_rng(100 + slot)
    while game is PLAIN:
        yield 1 if rng.random() < 0.15 else int(rng.integers(len(LETTERS)))
    encode = GuessNumber().tokenizer.encode
    while True:
        for text in (str(rng.integers(10)), "\n"):
            yield int(encode(text)[0]) if rng.random() < 0.95 else 1


def play(envs, steps, game=PLAIN, seed=SEED):
    """Play the scripts; return for each slot its releases and what the steps paid, in order."""
    mode = envs.metadata["autoreset_mode"]
    obs, info = envs.reset(seed=seed)
    assert info == {}
    torchy = isinstance(obs, torch.Tensor)
    scripts = [script(slot, game) for slot in range(envs.num_envs)]
    out = [[] for _ in scripts]
    ended = np.zeros(envs.num_envs, dtype=np.bool_)
    for _ in range(steps):
        acting = ~ended if mode is NEXT_STEP else np.ones_like(ended)
        actions = np.array([next(actions) if acts else 0 for actions, acts in zip(scripts, acting, strict=True)])
        obs, rewards, terminated, truncated, infos = envs.step(torch.from_numpy(actions) if torchy else actions)
        assert obs.shape == envs.observation_space.shape
        ended = np.asarray(terminated | truncated)
        released = releases(infos)
        assert [release.slot for release in released] == np.flatnonzero(ended).tolist()
        for release in released:
            assert (release.terminated, release.truncated) == (
                bool(terminated[release.slot]),
                bool(truncated[release.slot]),
            )
            out[release.slot].append((release, float(rewards[release.slot])))
        if mode is DISABLED and ended.any():
            mask = ended.copy()
            envs.reset(options={"reset_mask": torch.from_numpy(mask) if torchy else mask})
    return out


@functools.cache
def reference_of(name, slots=3, episodes=40):
    """The first episodes of each slot, from single environments that nothing is wrapped around."""
    game = next(game for game in (PLAIN, TURNS) if game[0] == name)
    out = []
    for slot in range(slots):
        env = make(game).unwrapped
        env.reset(seed=SEED + slot)
        actions, played = script(slot, game), []
        while len(played) < episodes:
            _, reward, terminated, truncated, info = env.step(next(actions))
            if terminated or truncated:
                played.append((textgym.release(info), reward))
                env.reset()
        out.append(played)
    return out


def reference(game):
    return reference_of(game[0])


def assert_right(played, game=PLAIN, paid=True, least=4):
    """What was released is what the reference released; ``paid``: so is what the steps paid."""
    for slot, (ours, theirs) in enumerate(zip(played, reference(game), strict=False)):
        assert len(ours) >= least
        for (release, reward), (expected, expected_reward) in zip(ours, theirs, strict=False):
            for name in ("token_rewards", "streams", "agent_mask"):
                np.testing.assert_array_equal(getattr(release, name), getattr(expected, name), err_msg=name)
            for name in ("num_tokens", "terminated", "truncated", "is_success", "criteria", "ledger"):
                assert getattr(release, name) == getattr(expected, name), name
            assert release.slot == slot
            if paid:
                assert reward == expected_reward == float(release.token_rewards.sum(dtype=np.float64))


@GAMES
def test_the_reference_pays_different_things_and_has_turns_where_there_should_be(game):
    played = [item for slot in reference(game) for item in slot]
    assert len({reward for _, reward in played}) > 3
    assert len({release.num_tokens for release, _ in played}) > 2
    assert any(not release.agent_mask.all() for release, _ in played) == (game is TURNS)


@GAMES
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", HOSTS)
def test_every_host_releases_the_same_in_every_autoreset_mode(host, mode, game):
    envs = make_vec(game, host, mode)
    kinds = {"sync": SyncVectorEnv, "async": AsyncVectorEnv, "vector_entry_point": textgym.TextGenVectorEnv}
    assert type(envs) is kinds[host]
    assert envs.metadata["autoreset_mode"] is mode
    assert_right(play(envs, 60, game), game)
    envs.close()


@pytest.mark.parametrize("host", ["sync", "async"])
@GAMES
def test_observations_of_every_host_are_those_of_the_native_door(host, game):
    envs, native = make_vec(game, host, SAME_STEP), make_vec(game, "vector_entry_point", SAME_STEP)
    assert envs.observation_space == native.observation_space
    assert envs.action_space == native.action_space
    np.testing.assert_array_equal(envs.reset(seed=0)[0], native.reset(seed=0)[0])
    scripts = [script(slot, game) for slot in range(3)]
    for _ in range(30):
        actions = np.array([next(actions) for actions in scripts])
        for one, other in zip(envs.step(actions)[:4], native.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
    envs.close()


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_fresh_processes_find_the_id_by_the_module_in_its_name(context):
    """A partial of ``gym.make`` brings nothing of this file along: only the id says what to import."""
    envs = AsyncVectorEnv([functools.partial(gym.make, TURNS[0])] * 2, context=context)
    assert_right(play(envs, 30, TURNS), TURNS, least=2)
    envs.close()


# ------------------------------------------------------------------------------------------------- Gymnasium's wrappers


def play_scalar(env, episodes=6):
    """Play the script of slot 0."""
    env.reset(seed=SEED)
    actions, out = script(0, PLAIN), []
    while len(out) < episodes:
        obs, reward, terminated, truncated, info = env.step(next(actions))
        if terminated or truncated:
            out.append((textgym.release(info), float(reward)))
            last = (obs, info)
            env.reset()
    return out, last


def test_record_episode_statistics_and_the_release_stand_side_by_side():
    env = wrappers.RecordEpisodeStatistics(make())
    played, (_, info) = play_scalar(env)
    assert_right([played])
    assert (info["episode"]["r"], info["episode"]["l"]) == (played[-1][1], played[-1][0].num_tokens)
    assert list(env.return_queue) == [reward for _, reward in played]


@pytest.mark.parametrize("observation", ["tokens", "dict"])
def test_flatten_observation_gives_one_array(observation):
    env = wrappers.FlattenObservation(make(observation=observation))
    rules = env.unwrapped.rules
    size = rules.context_length + (0 if observation == "tokens" else 1 + rules.vocab_size)
    assert env.observation_space.shape == (size,)
    played, (obs, _) = play_scalar(env)
    assert_right([played])
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("wrap", "changed"),
    [
        (lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward), lambda reward: 2 * reward),
        (lambda env: wrappers.TransformReward(env, lambda reward: -reward), lambda reward: -reward),
        (wrappers.NormalizeReward, None),
    ],
)
def test_wrappers_that_change_the_steps_reward_leave_the_release_alone(wrap, changed):
    played, _ = play_scalar(wrap(make()))
    assert_right([played], paid=False)
    for (_, reward), (_, expected) in zip(played, reference(PLAIN)[0], strict=False):
        if changed is not None:
            assert reward == changed(expected)
        assert np.isfinite(reward)


def test_numpy_to_torch_gives_tensors_that_the_reader_reads():
    pytest.importorskip("array_api_compat")
    env = wrappers.NumpyToTorch(make())
    env.reset(seed=SEED)
    actions, played = script(0, PLAIN), []
    while len(played) < 6:
        obs, reward, terminated, truncated, info = env.step(torch.tensor(next(actions)))
        assert isinstance(obs, torch.Tensor)
        if terminated or truncated:
            assert isinstance(info["token_rewards"], torch.Tensor)
            played.append((textgym.release(info), float(reward)))
            env.reset()
    assert_right([played])


def test_many_wrappers_at_once():
    env = make(observation="dict")
    for wrap in (wrappers.RecordEpisodeStatistics, wrappers.FlattenObservation, wrappers.NormalizeReward):
        env = wrap(env)
    played, _ = play_scalar(env)
    assert_right([played], paid=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", ["sync", "vector_entry_point"])
def test_vector_statistics_and_the_releases_stand_side_by_side(host, mode):
    if (host, mode) == ("sync", DISABLED):
        pytest.skip("Gymnasium's SyncVectorEnv takes the mask out of the options before its statistics read it")
    if mode is SAME_STEP and not GYMNASIUM_COUNTS_SAME_STEP:
        pytest.skip("Gymnasium's wrapper miscounts in this mode before 1.4")
    envs = vector_wrappers.RecordEpisodeStatistics(make_vec(PLAIN, host, mode))
    played = play(envs, 60)
    assert_right(played)
    flat = sorted((reward, release.num_tokens) for slot in played for release, reward in slot)
    assert sorted(zip(envs.return_queue, envs.length_queue, strict=True)) == flat


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", ["sync", "vector_entry_point"])
def test_vector_wrappers_that_change_the_steps_reward_leave_the_releases_alone(host, mode):
    envs = vector_wrappers.TransformReward(make_vec(PLAIN, host, mode), lambda rewards: 2 * rewards)
    played = play(envs, 60)
    assert_right(played, paid=False)
    for slot in played:
        for release, reward in slot:
            assert reward == 2 * float(release.token_rewards.sum(dtype=np.float64))
    played = play(vector_wrappers.NormalizeReward(make_vec(PLAIN, host, mode)), 60)
    assert_right(played, paid=False)
    assert all(np.isfinite(reward) for slot in played for _, reward in slot)


@pytest.mark.parametrize("mode", [NEXT_STEP, DISABLED])
@pytest.mark.parametrize("host", ["sync", "vector_entry_point"])
def test_vector_numpy_to_torch_gives_tensors_that_the_reader_reads(host, mode):
    pytest.importorskip("array_api_compat")
    envs = vector_wrappers.NumpyToTorch(make_vec(PLAIN, host, mode))
    assert isinstance(envs.reset(seed=0)[0], torch.Tensor)
    assert_right(play(envs, 60))


# ------------------------------------------------------------------------------------------------------- copies, specs


def prompt_task(letters):
    return PromptTask(PROMPTS["prompts"], letters, judge, max_new_tokens=6, stop=["b."])


TASKS = {"prompts": prompt_task, "duel": lambda letters: None, "turns": lambda letters: GuessNumber()}


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        np.testing.assert_array_equal(a, b)


def through_pickle(env):
    return pickle.loads(pickle.dumps(env))  # noqa: S301


@pytest.mark.parametrize("duplicate", [through_pickle, copy.deepcopy])
@pytest.mark.parametrize("observation", ["tokens", "dict"])
@pytest.mark.parametrize("task", TASKS)
def test_a_copy_made_in_the_middle_of_a_text_goes_on_like_the_original(letters, task, observation, duplicate):
    env = textgym.TextGenEnv(TASKS[task](letters), observation=observation, info_text=True, render_mode="ansi")
    size = int(env.action_space.n)
    for steps in (0, 1, 3):
        env.reset(seed=5)
        rng = np.random.default_rng(steps)
        written = 0
        while written < steps:
            _, _, terminated, truncated, _ = env.step(int(rng.integers(2, size)))
            written = 0 if terminated or truncated else written + 1
            if terminated or truncated:
                env.reset()
        other = duplicate(env)
        assert env.render() == other.render()
        ended = 0
        for _ in range(60):
            action = int(rng.integers(size))
            got, expected = other.step(action), env.step(action)
            for a, b in zip(got, expected, strict=True):
                same(a, b)
            if expected[2] or expected[3]:
                same(other.reset(), env.reset())
                ended += 1
        assert ended >= 2
        assert other.np_random is not env.np_random
        same(other.reset(seed=8)[0], env.reset(seed=8)[0])


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_a_copy_of_the_native_door_goes_on_like_the_original(letters, task, mode, output):
    envs = textgym.TextGenVectorEnv(
        4, TASKS[task](letters), autoreset_mode=mode, output=output, group_size=2, keep_episodes=True, render_mode="ansi"
    )
    envs.reset(seed=5)
    rng = np.random.default_rng(0)
    convert = torch.from_numpy if output == "torch" else np.asarray

    def step(*all_of_them):
        actions = rng.integers(2, int(envs.single_action_space.n), size=4)
        actions[rng.random(4) < 0.15] = 1
        out = [each.step(convert(actions)) for each in all_of_them]
        done = np.asarray(out[0][2] | out[0][3])
        if mode is DISABLED and done.any():
            for each in all_of_them:
                each.reset(options={"reset_mask": done})
        return out

    for _ in range(7):
        step(envs)
    other = through_pickle(envs)
    assert envs.render() == other.render()
    for _ in range(60):
        for a, b in zip(*step(envs, other), strict=True):
            same(a, b)
    assert other.np_random_seed == envs.np_random_seed
    kept, copied = envs.take_episodes(), other.take_episodes()
    assert len(kept) > 10
    for (episode, release), (episode_copy, release_copy) in zip(kept, copied, strict=True):
        assert (episode.prompt.text, episode.text, episode.episode_id) == (
            episode_copy.prompt.text,
            episode_copy.text,
            episode_copy.episode_id,
        )
        np.testing.assert_array_equal(release.token_rewards, release_copy.token_rewards)
    same(envs.reset(seed=9)[0], other.reset(seed=9)[0])


@pytest.mark.parametrize(("env_id", "kwargs"), [("textgym:TextGen-v0", {}), (TURNS[0], {"size": 20})])
def test_a_spec_makes_the_same_again_after_a_journey_through_json(env_id, kwargs):
    env = gym.make(env_id, observation="dict", info_text=True, **kwargs)
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    again = gym.make(spec)
    assert again.spec == env.spec
    assert again.observation_space == env.observation_space
    same(again.reset(seed=1), env.reset(seed=1))
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = int(rng.integers(env.action_space.n))
        got, expected = again.step(action), env.step(action)
        for a, b in zip(got, expected, strict=True):
            same(a, b)
        if expected[2] or expected[3]:
            same(again.reset(), env.reset())


@pytest.mark.parametrize("host", HOSTS)
def test_the_spec_of_a_vector_makes_the_same_again(host):
    envs = make_vec(TURNS, host, DISABLED, num_envs=2, size=20)
    again = gym.make_vec(envs.spec)
    assert type(again) is type(envs)
    assert (again.num_envs, again.metadata["autoreset_mode"]) == (2, DISABLED)
    assert again.single_observation_space == envs.single_observation_space
    assert again.spec == envs.spec
    for one, other in zip(play(envs, 30, TURNS), play(again, 30, TURNS), strict=True):
        assert len(one) == len(other) > 2
        for (release, reward), (expected, expected_reward) in zip(one, other, strict=True):
            np.testing.assert_array_equal(release.token_rewards, expected.token_rewards)
            assert (release.episode_id, reward) == (expected.episode_id, expected_reward)
    envs.close()
    again.close()


# ---------------------------------------------------------------------------------------------------- groups, prompts


@pytest.mark.parametrize("mode", MODES)
def test_slots_of_a_group_have_the_same_prompts_through_make_vec(mode):
    envs = make_vec(PLAIN, "vector_entry_point", mode, 6, group_size=3, keep_episodes=True)
    play(envs, 60)
    assert envs.np_random_seed == (3, 3, 3, 4, 4, 4)
    groups = {}
    for episode, release in envs.take_episodes():
        groups.setdefault(release.group_id, []).append((release.slot // 3, episode.prompt.text))
    assert sum(len(members) == 3 for members in groups.values()) > 5
    assert all(len(set(members)) == 1 for members in groups.values())
    assert len({text for members in groups.values() for _, text in members}) > 1


def test_without_groups_every_slot_has_prompts_of_its_own():
    one, two = (gym.make_vec(PLAIN[0], 4, group_size=size, **PLAIN[1]).reset(seed=0)[0] for size in (1, 2))
    np.testing.assert_array_equal(two[[0, 2]], one[[0, 1]])
    np.testing.assert_array_equal(two[0], two[1])
    assert (one[0] != one[1]).any()


@pytest.mark.parametrize("host", [None, *HOSTS])
def test_a_certain_prompt_can_be_asked_for_in_every_host(host):
    """A text, or a Prompt with metadata that the task needs: here the number to guess."""
    options = {"prompt": Prompt("", metadata={"number": 7})}
    encode = GuessNumber().tokenizer.encode
    if host is None:
        env = make(TURNS)
        env.reset(options=options)
        for text in ("7", "\n"):
            step = env.step(int(encode(text)[0]))
        assert (step[1], textgym.release(step[4]).is_success) == (pytest.approx(1.0), True)
        assert make().reset(options={"prompt": "def"})[0].tolist()[:4] == [*LETTERS.encode("def"), -1]
    else:
        envs = make_vec(TURNS, host, NEXT_STEP)
        envs.reset(options=options)
        for text in ("7", "\n"):
            step = envs.step(np.full(3, encode(text)[0]))
        assert [release.is_success for release in releases(step[4])] == [True] * 3
        envs.close()
        envs = make_vec(PLAIN, host, NEXT_STEP)
        obs, _ = envs.reset(options={"prompt": "def"})
        assert obs[:, :4].tolist() == [[*LETTERS.encode("def"), -1]] * 3
        envs.close()
    assert list(options) == ["prompt"]


@pytest.mark.parametrize("host", ["sync", "vector_entry_point"])
def test_asking_for_a_prompt_changes_no_later_prompt(host):
    asked, plain = make_vec(PLAIN, host, SAME_STEP), make_vec(PLAIN, host, SAME_STEP)
    plain.reset(seed=0)
    asked.reset(seed=0, options={"prompt": "a"})
    for _ in range(5):
        np.testing.assert_array_equal(asked.reset()[0], plain.reset()[0])
