import pytest
import torch
from agent_kit import play_kit, weights
from textgym_agents.cloning import Cloning, CloningConfig

SMALL = {"episodes_per_update": 8, "minibatch_episodes": 4}
DEMONSTRATIONS = {"demonstrations": [("a", "bcd"), ("a", "ef")]}


def test_the_loss_falls_to_the_entropy_of_the_demonstrations(letters):
    policy, envs = play_kit(letters, **DEMONSTRATIONS)
    seen = []
    Cloning(policy, CloningConfig(learning_rate=1e-2, **SMALL)).learn(envs, 8 * 40, seen.append)
    assert [figures["episodes"] for figures in seen[:2]] == [8, 16]
    # two equally likely texts of 4 and 3 tokens with their ends: log 2 nats on the first token of each, 0 on the others
    assert seen[0]["loss"] > 1
    assert seen[-1]["loss"] == pytest.approx(0.198, abs=0.08)  # 2 log 2 / 7
    assert envs.take_episodes() == []  # nothing was played


def test_the_same_seed_draws_the_same_demonstrations(letters):
    out = []
    for seed in (0, 0, 1):
        policy, envs = play_kit(letters, **DEMONSTRATIONS)
        Cloning(policy, CloningConfig(**SMALL), seed=seed).learn(envs, 16)
        out.append(weights(policy))
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])


def test_a_task_without_demonstrations_is_refused(letters):
    policy, envs = play_kit(letters)
    with pytest.raises(ValueError, match="PromptTask has no demonstrations"):
        Cloning(policy, CloningConfig(**SMALL)).learn(envs, 8)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="minibatch_episodes is 0"):
        CloningConfig(minibatch_episodes=0)
