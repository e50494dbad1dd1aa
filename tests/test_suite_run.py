from dataclasses import replace

import pytest
from conftest import build_episode
from suite_kit import MyCopying
from textgym_agents.suite_run import Curve, Job, Watched, check, config_of, run

from textgym import Prompt
from textgym.suite.setting import Setting

SMALL = {"layers": 1, "width": 16, "heads": 2, "num_slots": 8, "eval_episodes": 16, "warmup_steps": 0, "episodes_per_update": 8}
DEFINED = {"length": 3, "alphabet": 4}


def setting(reward="dense", agent="ppo", episodes=24, task="copying", task_args=DEFINED, **agent_args):
    return Setting(task, reward, agent, episodes, task_args, agent_args, SMALL)


def test_a_run_tells_its_curve_in_tokens_and_reward_calls(tmp_path):
    found = run(Job(setting("prefix_difference"), 0, tmp_path))
    curve = found["curve"]
    assert curve["episodes"] == [0, 8, 16, 24]  # who plays the first collection has learned from none
    assert len(curve["score"]) == 4
    assert curve["score"][-1] == found["final"]["score"]
    tokens = [after - before for before, after in zip(curve["tokens"], curve["tokens"][1:], strict=False)]
    assert all(8 <= each <= 24 for each in tokens)  # 8 texts of 1 to 3 tokens
    # a text of n tokens is scored itself, and its n - 1 beginnings: n calls
    assert curve["reward_calls"] == curve["tokens"]
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_again_is_the_same_and_another_seed_is_not(tmp_path):
    one, same, other = (run(Job(setting(), seed, tmp_path)) for seed in (0, 0, 1))
    assert one["curve"] == same["curve"] != other["curve"]
    assert one["final"] == same["final"]


def test_warnings_are_kept_once_each(tmp_path):
    warned = [each for each in run(Job(setting("uniform"), 0, tmp_path))["warnings"] if "NonCausalCreditWarning" in each]
    assert len(warned) == 1


def test_an_agent_that_plays_nothing_has_one_point(tmp_path):
    curve = run(Job(setting(agent="cloning"), 0, tmp_path))["curve"]
    assert curve["tokens"] == curve["reward_calls"] == [0]


def test_calls_of_the_task_s_own_assigner_are_counted(tmp_path):
    curve = run(Job(setting("streams", task="suite_kit:SplitCopying"), 0, tmp_path))["curve"]
    assert curve["reward_calls"] == curve["tokens"]


@pytest.mark.parametrize("reward", ["attention", "monte_carlo"])
def test_assigners_that_ask_the_policy_run_too(tmp_path, reward):
    curve = run(Job(setting(reward), 0, tmp_path))["curve"]
    assert (curve["reward_calls"][-1] > curve["episodes"][-1]) == (reward == "monte_carlo")


def test_credit_is_measured_where_nobody_learns(tmp_path):
    found = run(Job(Setting("probe_reply", "last", "exact", 1), 0, tmp_path))
    assert found["credit"]["cosine"] == pytest.approx(1.0)
    assert "curve" not in found


def test_what_is_judged_before_learning_is_no_part_of_the_curve():
    task = Watched(MyCopying(**DEFINED))
    curve = Curve(task)
    episode = replace(build_episode("abc"), prompt=Prompt("abc>"))
    task.score([episode])
    curve.phase("warm-up", 1)
    curve.advance(1, {"loss": 0.0})
    curve.phase("learning", 1)
    task.score([episode, episode])
    curve.advance(2, {"score": 0.5})
    curve.advance(3, {})  # nothing was judged
    curve.add(0.75)
    assert curve.points == {"tokens": [0, 6], "episodes": [0, 2], "reward_calls": [0, 2], "score": [0.5, 0.75]}


def test_options_are_the_agents_and_the_runs():
    config = config_of(setting(epochs=4, learning_rate=1e-3), 5)
    assert (config.ppo.epochs, config.ppo.learning_rate, config.ppo.episodes_per_update) == (4, 1e-3, 8)
    assert (config.updates, config.seed, config.width, config.device) == (3, 5, 16, "cpu")
    config = config_of(setting(agent="rloo", group_size=4), 0)
    assert (config.agent_args, config.updates) == ({"group_size": 4}, 3)
    assert config_of(Setting("random_walks", "dense", "ppo", 140), 0).layers == 6  # as textgym train has that task


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agent": "pp"}, "no agent 'pp'.*Did you mean 'ppo'"),
        ({"reward": "denso"}, "no assigner 'denso'"),
        ({"task": "copyng"}, "Did you mean 'copying'"),
        ({"episodes": 20}, "budget of copying.* is 20 episodes, .* takes 8; give a multiple, such as 16"),
        ({"epocs": 2}, "no option 'epocs'"),
    ],
)
def test_wrong_names_and_budgets_are_told_before_anything_is_run(changes, said):
    with pytest.raises(ValueError, match=said):
        check(setting(**changes))


def test_unknown_options_of_a_run_are_told_with_those_that_there_are():
    with pytest.raises(ValueError, match="have depth; there are episodes_per_update, model, layers"):
        check(Setting("copying", "dense", "ppo", 256, options={"depth": 2}))
