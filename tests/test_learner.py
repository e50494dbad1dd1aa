import subprocess
import sys
from pathlib import Path

import pytest
import torch
from agent_kit import CONTEXT, build_lm, play_kit, weights
from safetensors.torch import load_file
from textgym_agents import ActorCritic, CausalLMPolicy, collect
from textgym_agents.learner import Learner, check_group_size, updates_of
from textgym_agents.losses import masked_mean


def likelihood(rollout):
    return lambda logprobs, cut, count: (-masked_mean(logprobs, cut(rollout.agent_mask), count), {})


def test_small_passes_add_up_to_the_same_gradient(letters):
    norms = []
    for cells in (1, 2048):
        policy, envs = play_kit(letters)
        rollout = collect(envs, policy, 8)
        learner = Learner(policy, learning_rate=0.0, max_grad_norm=1e9, microbatch_tokens=cells)
        figures = learner.step(rollout, torch.arange(8), likelihood(rollout))
        assert figures["loss"] == pytest.approx(-float(rollout.logprobs[rollout.agent_mask].mean()), rel=1e-5)
        norms.append(torch.cat([p.grad.flatten() for p in learner.parameters]))
    assert torch.allclose(*norms, atol=1e-6)


def test_the_learning_rate_falls_with_the_share_of_the_budget(letters):
    policy, _ = play_kit(letters)
    learner = Learner(policy, learning_rate=0.8)
    learner.anneal(0.75)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_a_loss_that_is_not_finite_changes_no_weight_and_names_the_episodes_F15(letters):
    policy, envs = play_kit(letters)
    rollout = collect(envs, policy, 8)
    learner, before = Learner(policy, learning_rate=0.1), weights(policy)
    with pytest.raises(FloatingPointError, match=rf"the loss is nan on episodes \[.*{int(rollout.episode_id[3])}"):
        learner.step(rollout, torch.tensor([3]), lambda logprobs, cut, count: (logprobs.sum() * float("nan"), {}))

    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, grad):
            return torch.full((1, int(rollout.num_tokens[3])), float("inf"))

    with pytest.raises(FloatingPointError, match="the gradient's norm is nan on episodes"):
        learner.step(rollout, torch.tensor([3]), lambda logprobs, cut, count: (Explodes.apply(logprobs), {}))
    assert torch.equal(before, weights(policy))


def test_a_policy_without_a_language_model_or_with_values_that_nobody_reads_is_refused(letters):
    two = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT, build_lm("gpt2", len(letters)))
    with pytest.raises(ValueError, match="leave out --value-model separate, or use ppo"):
        Learner(CausalLMPolicy(two, 1), learning_rate=0.1)
    with pytest.raises(TypeError, match="the policy is a object; this agent improves a CausalLMPolicy"):
        Learner(object(), learning_rate=0.1)


def test_budgets_are_rounded_down_to_updates():
    assert [updates_of(budget, 8) for budget in (8, 15, 16)] == [1, 1, 2]


def test_groups_of_another_size_are_refused(letters):
    _, envs = play_kit(letters, group_size=2)
    check_group_size(envs, 2)
    with pytest.raises(ValueError, match="the environment's group_size is 2 and the agent's 4; make it with"):
        check_group_size(envs, 4)


def test_two_processes_learn_from_different_texts_and_stay_the_same(tmp_path):
    script = str(Path(__file__).with_name("two_learners.py"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, script, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = load_file(tmp_path / "0"), load_file(tmp_path / "1")
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]) == ("loss" not in name), name
