import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import textgym
from textgym import Task, symbol_tokenizer
from textgym.integrations.sb3_env import TextGenVecEnv
from textgym.vector_wrappers import TransformTokenRewards


class Ramp(Task):
    """Token i is paid i + 1; the text is cut after five tokens."""

    max_prompt_tokens = 2
    max_new_tokens = 5
    length_limit = "truncate"
    tokenizer = symbol_tokenizer([*"abc"])

    def sample(self, rng):
        return textgym.Prompt("abc"[rng.integers(3)])

    def rewards(self, episodes):
        return [list(range(1, len(e.ids) + 1)) for e in episodes]


def make(num_envs=3, **kwargs):
    return TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=num_envs, task=Ramp(), **kwargs))


def test_is_step_for_step_what_sb3s_own_vec_env_makes_of_single_environments():
    native, single = make(), DummyVecEnv([lambda: textgym.TextGenEnv(Ramp())] * 3)
    rng, ended = np.random.default_rng(0), 0
    for env in (native, single):
        env.seed(7)
    np.testing.assert_array_equal(native.reset(), single.reset())
    for _ in range(60):
        actions = rng.integers(len(Ramp.tokenizer), size=3)
        (obs, rewards, dones, infos), expected = native.step(actions), single.step(actions)
        np.testing.assert_array_equal(obs, expected[0])
        np.testing.assert_array_equal(rewards, expected[1])
        np.testing.assert_array_equal(dones, expected[2])
        assert rewards.dtype == expected[1].dtype and dones.dtype == expected[2].dtype
        for slot in range(3):
            if not dones[slot]:
                assert infos[slot] == {}
                continue
            ended += 1
            assert infos[slot].keys() == expected[3][slot].keys()
            for key, value in expected[3][slot].items():
                if key not in ("episode_id", "group_id"):  # the scalar door counts its own
                    np.testing.assert_array_equal(infos[slot][key], value, err_msg=key)
                    assert type(infos[slot][key]) is type(value), key
            assert textgym.release(infos[slot]).token_rewards.sum() == rewards[slot]
    assert ended > 20


def test_a_text_that_is_cut_says_so_and_shows_its_last_observation():
    env = make()
    env.reset()
    for _ in range(5):
        obs, _, dones, infos = env.step(np.full(3, 2))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True] * 3
    assert (infos[0]["terminal_observation"][1:6] == 2).all()
    assert (obs[:, 1:] == -1).all()
    env.reset()
    infos = env.step(np.full(3, Ramp.tokenizer.eos_token_id))[3]
    assert [info["TimeLimit.truncated"] for info in infos] == [False] * 3


def test_monitor_counts_tokens_and_token_rewards():
    env = VecMonitor(make())
    env.reset()
    for _ in range(5):
        infos = env.step(np.full(3, 2))[3]
    assert [(info["episode"]["l"], info["episode"]["r"]) for info in infos] == [(5, 15.0)] * 3
    assert "episode" not in env.step(np.full(3, 2))[3][0]


def test_infos_of_running_texts_stay_empty_after_an_end():
    env = make()
    env.reset()
    env.step(np.full(3, Ramp.tokenizer.eos_token_id))
    assert env.step(np.full(3, 2))[3] == [{}, {}, {}]


def test_dict_observations_arrive_as_sb3_wants_them():
    env = make(observation="dict")
    assert env.reset()["tokens"].shape == (3, 7)
    for _ in range(5):
        infos = env.step(np.full(3, 2))[3]
    assert infos[0]["terminal_observation"]["length"].tolist() == [6]


def test_groups_are_seeded_as_the_native_environment_seeds_them():
    env = make(num_envs=4, group_size=2)
    assert env.seed(5) == [5, 5, 6, 6]
    obs = env.reset()
    native = gym.make_vec("textgym:TextGen-v0", num_envs=4, task=Ramp(), group_size=2)
    np.testing.assert_array_equal(obs, native.reset(seed=5)[0])
    assert len(env.seed()) == 4


def test_options_are_for_all_slots():
    env = make()
    env.set_options({"prompt": "ab"})
    assert ((env.reset() >= 0).sum(1) == 2).all()
    assert ((env.reset() >= 0).sum(1) == 1).all()  # and for one reset
    env.set_options([{"prompt": "ab"}, {}, {}])
    with pytest.raises(ValueError, match="give one dict"):
        env.reset()


def test_attributes_and_methods_reach_the_vector_environment():
    env = make(render_mode="ansi")
    env.seed(3)
    env.reset()
    assert env.get_attr("max_new_tokens") == [5, 5, 5]
    assert env.get_attr("np_random_seed", [2, 0]) == [5, 3]
    assert env.get_attr("action_space", 1) == [env.action_space]
    assert env.has_attr("rules") and not env.has_attr("no_such_thing")
    env.set_attr("note", "x")
    assert env.native.note == "x" and env.get_attr("note", 0) == ["x"]
    with pytest.raises(ValueError, match="share it"):
        env.set_attr("note", "y", indices=[0])
    with pytest.raises(ValueError, match="belongs to the rules"):
        env.set_attr("max_response_tokens", 7)
    assert len(env.env_method("render")) == 3
    assert isinstance(env.env_method("render", indices=[1])[0], str)
    with pytest.raises(ValueError, match="not with one item"):
        env.env_method("drain")
    assert env.env_is_wrapped(Monitor) == [False] * 3
    wrapped = TextGenVecEnv(RecordEpisodeStatistics(env.native))
    assert wrapped.env_is_wrapped(RecordEpisodeStatistics, [0]) == [True]
    assert wrapped.get_attr("episode_count") == [0] * 3
    wrapped.close()


def test_images_are_tiled():
    env = make(render_mode="rgb_array")
    env.reset()
    images = env.get_images()
    assert len(images) == 3
    height, width, _ = images[0].shape
    assert env.render().shape == (2 * height, 2 * width, 3)


def test_wrappers_of_rewards_are_seen():
    envs = TransformTokenRewards(
        gym.make_vec("textgym:TextGen-v0", num_envs=2, task=Ramp()), lambda rewards: 2 * rewards, "twice"
    )
    env = TextGenVecEnv(envs)
    env.reset()
    env.step(np.full(2, 2))
    _, rewards, _, infos = env.step(np.full(2, Ramp.tokenizer.eos_token_id))
    assert rewards.tolist() == [6.0, 6.0]
    assert textgym.release(infos[1]).token_rewards.tolist() == [2.0, 4.0]


def test_observations_pass_reward_normalisation_unchanged():
    env = VecNormalize(make(), norm_obs=False, norm_reward=True)
    np.testing.assert_array_equal(env.reset()[:, 1:], -1)
    rewards = [env.step(np.full(3, 2))[1] for _ in range(5)]
    assert 0 < rewards[-1][0] < 15
    assert env.get_original_reward().tolist() == [15.0] * 3


def test_sb3_learns_and_evaluates_through_it():
    env = VecMonitor(make())
    model = sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=24, n_epochs=1, seed=0, device="cpu")
    model.learn(48)
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=5, return_episode_rewards=True)
    assert [n * (n + 1) / 2 for n in lengths] == rewards and len(rewards) == 5
    tokens, _ = model.predict(env.reset())
    assert tokens.shape == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autoreset_mode": "NextStep"}, "SameStep"),
        ({"output": "torch"}, "numpy"),
        ({"reward_workers": 1}, "reward_workers=0"),
        ({"infos": "objects"}, "infos='arrays'"),
    ],
)
def test_other_environments_are_refused(options, message):
    envs = gym.make_vec("textgym:TextGen-v0", num_envs=2, task=Ramp(), **options)
    with pytest.raises(ValueError, match=message):
        TextGenVecEnv(envs)
    envs.close()
    with pytest.raises(ValueError, match="DummyVecEnv"):
        TextGenVecEnv(gym.vector.SyncVectorEnv([lambda: textgym.TextGenEnv(Ramp())]))
