"""Time limits from outside: whoever would cut a text before its release is named, and nobody else."""

import gymnasium as gym
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, NormalizeReward, RecordEpisodeStatistics, TimeLimit

import textgym
from textgym.tasks.guess_number import GuessNumber
from textgym.time_limits import refuse_time_limits
from textgym.wrappers import Clip, TransformTokenRewards

OWN = 16  # tokens that the number duel allows


def duel(limit=None):
    return gym.make("TextGen-v0", max_episode_steps=limit)


def bare(limit=None):
    """Made without ``gym.make``: the environment has no spec."""
    env = textgym.TextGenEnv()
    return env if limit is None else TimeLimit(env, limit)


def test_the_number_duel_allows_sixteen_tokens():
    assert duel().unwrapped.rules.max_new_tokens == OWN


@pytest.mark.parametrize("make", [duel, bare])
@pytest.mark.parametrize("limit", [1, OWN - 1, OWN])
def test_a_limit_below_or_equal_to_the_texts_own_is_refused_with_both_numbers(make, limit):
    message = (
        rf"a TimeLimit of {limit} steps .* may have {OWN} tokens .* leave max_episode_steps out of gym\.make .*max_new_tokens"
    )
    with pytest.raises(ValueError, match=message):
        refuse_time_limits(make(limit))


@pytest.mark.parametrize("make", [duel, bare])
@pytest.mark.parametrize("limit", [None, OWN + 1, 1000])
def test_no_limit_or_one_above_is_accepted(make, limit):
    refuse_time_limits(make(limit))


def test_minus_one_is_gymnasiums_way_to_say_no_limit():
    refuse_time_limits(duel(-1))


def test_an_equal_limit_would_set_both_flags_of_the_last_token(letters):
    """Why equal is not enough."""
    env = textgym.TextGenEnv(prompts=["a"], tokenizer=letters, reward_fn=lambda e: [0.0] * len(e), max_new_tokens=2)
    for limit, flags in ((2, (True, True)), (3, (True, False))):
        limited = TimeLimit(env, limit)
        limited.reset(seed=0)
        limited.step(2)
        assert limited.step(2)[2:4] == flags


def test_a_limit_is_found_however_deep_it_is():
    def chain(env):
        for wrap in (RecordEpisodeStatistics, FlattenObservation, NormalizeReward):
            env = wrap(env)
        return TransformTokenRewards(env, Clip(1))

    refuse_time_limits(chain(duel(100)))
    with pytest.raises(ValueError, match="a TimeLimit of 3 steps"):
        refuse_time_limits(chain(duel(3)))
    with pytest.raises(ValueError, match="a TimeLimit of 3 steps"):
        refuse_time_limits(chain(TimeLimit(chain(duel()), 3)))


@pytest.mark.parametrize("limits", [(3, 100), (100, 3), (100, 3, 200)])
def test_the_shortest_of_several_limits_counts(limits):
    env = duel()
    for limit in limits:
        env = TimeLimit(env, limit)
    with pytest.raises(ValueError, match="a TimeLimit of 3 steps"):
        refuse_time_limits(env)


def test_the_agents_tokens_count_not_the_replies():
    task = GuessNumber()
    assert (task.max_new_tokens, task.max_response_tokens) == (6, 10)
    refuse_time_limits(TimeLimit(textgym.TextGenEnv(task), 7))
    with pytest.raises(ValueError, match=r"a TimeLimit of 6 steps .* may have 6 tokens"):
        refuse_time_limits(TimeLimit(textgym.TextGenEnv(task), 6))


def fn(make, *limits):
    """A maker of an environment within one TimeLimit after the other."""

    def made():
        env = make()
        for limit in limits:
            env = TimeLimit(env, limit)
        return env

    return made


@pytest.mark.parametrize("make", [duel, bare])
@pytest.mark.parametrize("limits", [(None, 100, OWN), (100, OWN)])
@pytest.mark.parametrize("host", [SyncVectorEnv, AsyncVectorEnv])
def test_one_cut_environment_among_many_is_found(host, make, limits):
    envs = host([fn(make, *([] if limit is None else [limit])) for limit in limits])
    try:
        with pytest.raises(ValueError, match="TimeLimit"):
            refuse_time_limits(envs)
        with pytest.raises(ValueError, match="TimeLimit"):  # through wrappers of the vector, too
            refuse_time_limits(gym.wrappers.vector.RecordEpisodeStatistics(envs))
    finally:
        envs.close()


@pytest.mark.parametrize("make", [duel, bare])
@pytest.mark.parametrize("limits", [(), (OWN + 1,)])
@pytest.mark.parametrize("host", [SyncVectorEnv, AsyncVectorEnv])
def test_vectors_without_a_cut_are_accepted(host, make, limits):
    envs = host([fn(make, *limits)] * 2)
    try:
        refuse_time_limits(envs)
        refuse_time_limits(gym.wrappers.vector.RecordEpisodeStatistics(envs))
    finally:
        envs.close()


def test_a_short_limit_inside_of_a_long_one_is_found_in_a_vector_too():
    envs = SyncVectorEnv([fn(duel, 3, 100)])
    try:
        with pytest.raises(ValueError, match="TimeLimit"):
            refuse_time_limits(envs)
    finally:
        envs.close()


@pytest.mark.parametrize("host", [SyncVectorEnv, AsyncVectorEnv])
def test_a_limit_inside_of_other_wrappers_is_found_in_a_vector_too(host):
    envs = host([lambda: TransformTokenRewards(RecordEpisodeStatistics(duel(3)), Clip(1))])
    try:
        with pytest.raises(ValueError, match="a TimeLimit of 3 steps"):
            refuse_time_limits(envs)
    finally:
        envs.close()


@pytest.mark.parametrize("vectorization_mode", ["sync", "async"])
def test_max_episode_steps_of_make_vec_is_a_time_limit_in_gymnasiums_own_vectors(vectorization_mode):
    envs = gym.make_vec("TextGen-v0", 1, vectorization_mode, max_episode_steps=3)
    try:
        with pytest.raises(ValueError, match="a TimeLimit of 3 steps"):
            refuse_time_limits(envs)
    finally:
        envs.close()


def test_the_native_door_has_no_outside_limit_whatever_it_is_called():
    envs = gym.make_vec("TextGen-v0", 2, max_episode_steps=3)
    assert envs.rules.max_new_tokens == 3
    refuse_time_limits(envs)
    refuse_time_limits(gym.wrappers.vector.RecordEpisodeStatistics(envs))
