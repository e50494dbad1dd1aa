"""The scalar door."""

import copy
import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import textgym
from textgym import Prompt

IDS = ["TextGen-v0", *(f"textgym/{target.partition(':')[2]}-v0" for target in textgym.TASKS.values())]


def zeros(episodes):
    return [0.0] * len(episodes)


def make(letters, reward_fn=zeros, prompts=("a",), **kwargs):
    return textgym.TextGenEnv(prompts=list(prompts), tokenizer=letters, reward_fn=reward_fn, **kwargs)


def write(env, text, eos=True):
    """Write a text; returns the last step and the rewards of all steps."""
    actions = list(env.rules.tokenizer.encode(text)) + [env.rules.eos_token_id] * eos
    rewards, step = [], None
    for action in actions:
        step = env.step(int(action))
        rewards.append(step[1])
    return step, rewards


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("observation", ["tokens", "dict"])
def test_gymnasiums_checker_accepts_every_id_without_a_warning(env_id, observation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, observation=observation).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_sb3s_checker_accepts_every_id_without_a_warning(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gym.make(env_id).unwrapped)


def test_every_step_pays_exactly_0_and_the_last_pays_the_sum(letters):
    env = make(letters, lambda episodes: [[0.1, -0.2, 0.3, 0.7] for _ in episodes])
    env.reset(seed=0)
    (_, reward, terminated, truncated, info), rewards = write(env, "abc")
    assert rewards[:-1] == [0.0] * 3
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert (terminated, truncated) == (True, False)
    release = textgym.release(info)
    assert release is not None
    assert reward == pytest.approx(float(release.token_rewards.sum(dtype=np.float64)), abs=1e-6)
    assert release.token_rewards.tolist() == pytest.approx([0.1, -0.2, 0.3, 0.7])


def test_a_reward_is_paid_once_not_per_token_F13(letters):
    env = make(letters, lambda episodes: [1.0] * len(episodes), max_new_tokens=50)
    env.reset(seed=0)
    (_, reward, _, _, info), rewards = write(env, "a" * 50, eos=False)
    assert sum(rewards) == reward == 1.0
    assert np.flatnonzero(info["token_rewards"]).tolist() == [49]


def test_observation_is_prompt_then_response_then_minus_one(letters):
    env = make(letters, prompts=["ab"], max_new_tokens=3, max_prompt_tokens=4)
    obs, info = env.reset(seed=0)
    assert obs.tolist() == [2, 3, -1, -1, -1, -1, -1]
    assert info == {}
    later = env.step(letters.eos_token_id)[0]
    assert later.tolist() == [2, 3, 1, -1, -1, -1, -1]
    assert obs.tolist()[2] == -1  # arrays are fresh in every call


def test_dict_observation_tells_the_length(letters):
    env = make(letters, prompts=["ab"], observation="dict")
    obs, _ = env.reset(seed=0)
    assert obs["length"].tolist() == [2]
    assert obs["action_mask"].shape == (len(letters),)
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize(("eos", "text", "ended_by"), [(True, "ab", "eos"), (True, "", "eos"), (False, "abcd", "length")])
def test_what_ended_the_episode_is_told(letters, eos, text, ended_by):
    seen = []
    env = make(letters, lambda episodes: [seen.extend(episodes) or 0.0], max_new_tokens=4, info_text=True)
    env.reset(seed=0)
    (_, _, _, _, info), _ = write(env, text, eos)
    assert seen[0].ended_by == info["ended_by"] == ended_by
    assert (info["text"], info["prompt"]) == (text, "a")


def test_immediate_end_of_text_is_an_episode_of_one_token_F18(letters):
    env = make(letters, lambda episodes: [1.0] * len(episodes))
    env.reset(seed=0)
    (_, reward, terminated, _, info), _ = write(env, "")
    release = textgym.release(info)
    assert (reward, terminated, release.num_tokens, release.token_rewards.tolist()) == (1.0, True, 1, [1.0])


def test_length_limit_terminates_or_truncates_as_the_task_says_F05(letters):
    for limit, flags in (("terminate", (True, False)), ("truncate", (False, True))):
        env = make(letters, max_new_tokens=2, length_limit=limit)
        env.reset(seed=0)
        (_, _, terminated, truncated, info), _ = write(env, "ab", eos=False)
        assert (terminated, truncated) == flags
        assert (info["terminated"], info["truncated"]) == flags
        env.reset(seed=0)
        (_, _, terminated, truncated, _), _ = write(env, "a")  # end-of-text at the limit is an end, not a cut
        assert (terminated, truncated) == (True, False)


def test_sampled_ids_reach_the_reward_function_as_they_are_F21(letters):
    seen = []
    env = make(letters, lambda episodes: [seen.extend(episodes) or 0.0])
    env.reset(seed=0)
    for action in (2, 0, 3, 1):  # begin-of-text in the middle disappears from the text, not from the ids F23
        env.step(action)
    assert seen[0].ids.tolist() == [2, 0, 3, 1]
    assert seen[0].text == "ab"
    with pytest.raises(ValueError, match="read-only"):
        seen[0].ids[0] = 5


def test_padding_that_equals_end_of_text_is_no_problem_F03():
    """Padding is -1 in observations and a count elsewhere; no mask is ever made from token ids."""
    tokenizer = textgym.symbol_tokenizer(["a"])
    env = textgym.TextGenEnv(prompts=["a"], tokenizer=tokenizer, reward_fn=lambda e: [1.0] * len(e), max_new_tokens=3)
    env.reset(seed=0)
    obs, _, _, _, info = env.step(tokenizer.eos_token_id)
    assert obs.tolist() == [2, 1, -1, -1]
    release = textgym.release(info)
    assert release.agent_mask.tolist() == [True]  # the end-of-text action is an action like any other
    assert release.token_rewards.tolist() == [1.0]


def test_prompts_are_a_function_of_seed_and_count(letters):
    def prompts(seed):
        env = make(letters, prompts=list("abcdefgh"))
        out = [env.reset(seed=seed)[0][0]]
        return out + [env.reset()[0][0] for _ in range(9)]

    assert prompts(3) == prompts(3)
    assert prompts(3) != prompts(4)


def test_a_seeded_neighbour_changes_nothing_F34(letters):
    def prompts(disturb):
        env, other = make(letters, prompts=list("abcdefgh")), make(letters, prompts=list("abcdefgh"))
        env.reset(seed=0)
        out = []
        for i in range(10):
            if disturb:
                other.reset(seed=i)
                np.random.seed(i)  # noqa: NPY002
            out.append(env.reset()[0][0])
        return out

    assert prompts(True) == prompts(False)


def test_the_environment_leaves_global_random_state_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    env = gym.make("TextGen-v0")
    env.reset(seed=5)
    env.step(env.action_space.sample())
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_a_certain_prompt_can_be_asked_for(letters):
    env = make(letters, max_prompt_tokens=3, info_text=True)
    assert env.reset(options={"prompt": "cab"})[0].tolist()[:3] == [4, 2, 3]
    assert env.reset(options={"prompt": Prompt("x", [5, 6])})[0].tolist()[:3] == [5, 6, -1]
    with pytest.raises(ValueError, match="has 4 tokens but max_prompt_tokens is 3: 'abab'"):
        env.reset(options={"prompt": "abab"})
    with pytest.raises(ValueError, match="a prompt is 3, a int"):
        env.reset(options={"prompt": 3})
    with pytest.raises(ValueError, match="no option 'promt'"):
        env.reset(options={"promt": "a"})


@pytest.mark.parametrize("action", [-1, 99, 1.5, None, "a"])
def test_actions_that_are_no_tokens_are_refused(letters, action):
    env = make(letters)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"allowed are whole numbers 0\.\.12"):
        env.step(action)


def test_stepping_without_an_episode_is_refused(letters):
    env = make(letters)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step(letters.eos_token_id)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_unknown_arguments_are_refused(letters):
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'max_tokens'\. Did you mean 'max_new_tokens'"):
        make(letters, max_tokens=3)
    with pytest.raises(ValueError, match="missing a required argument: 'prompts'"):
        textgym.TextGenEnv(tokenizer=letters, reward_fn=zeros)


def test_arguments_of_the_task_go_through_gym_make():
    env = gym.make("textgym/NumberDuel-v0", masses=(1.0, 0.0))
    assert env.unwrapped.rules.task.masses == (1.0, 0.0)
    assert gym.make("TextGen-v0", task="three_sentences").unwrapped.rules.task.mass == 1.0
    assert isinstance(gym.make("textgym:TextGen-v0").unwrapped, textgym.TextGenEnv)


def test_specs_deep_copy_and_survive_json():
    env = gym.make("TextGen-v0", task="textgym.tasks.number_duel:NumberDuel", numerals="digits")
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert json.loads(env.spec.to_json())["kwargs"]["numerals"] == "digits"
    assert gym.make(spec).unwrapped.rules.task.numerals == "digits"
    copy.deepcopy(env.spec)


def test_abandoned_episodes_do_not_give_their_number_to_the_next(letters):
    env = make(letters)
    env.reset(seed=0)
    env.reset()
    assert write(env, "a")[0][4]["episode_id"] == 1


def test_after_an_error_of_the_task_a_step_asks_for_a_reset(letters):
    class Broken(textgym.PromptTask):
        def ended(self, prompt, ids):
            raise RuntimeError

    env = textgym.TextGenEnv(Broken(["a"], letters, zeros, max_new_tokens=1))
    env.reset(seed=0)
    with pytest.raises(RuntimeError):
        env.step(2)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(2)


def test_arguments_of_the_vector_door_are_named_as_such():
    with pytest.raises(ValueError, match="reward_workers is an argument of the native vector environment"):
        gym.make("TextGen-v0", reward_workers=1)


def test_a_seed_restarts_the_numbers_of_episodes_and_errors_do_not_use_one_twice(letters):
    def reply(episode):
        if len(episode.ids) == 2:
            raise RuntimeError("no answer")
        return None

    env = textgym.TextGenEnv(textgym.PromptTask(["a"], letters, zeros, reply_fn=reply, max_new_tokens=4))
    numbers = []
    for seed in (0, None, 0, None):
        env.reset(seed=seed)
        numbers.append(textgym.release(env.step(1)[4]).episode_id)
    assert numbers == [0, 1, 0, 1]
    env.reset()
    env.step(2)
    with pytest.raises(RuntimeError, match="no answer"):
        env.step(1)
    env.reset()
    assert textgym.release(env.step(1)[4]).episode_id == 3
