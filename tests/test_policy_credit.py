import copy
from typing import Any

import numpy as np
import pytest
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, CausalLMPolicy
from textgym_agents.attention_credit import AttentionWeights
from textgym_agents.policy_credit import PolicyAttention, PolicyMonteCarlo, bind_policy, make_assigner
from textgym_agents.train import TrainConfig, train

from textgym import PromptTask, RewardForm
from textgym.credit import Attention, Uniform
from textgym.probes import play_random
from textgym.rules import Rules


def parts(letters, assigner):
    task = PromptTask(["a", "bcd"], letters, lambda es: [float(e.text.count("a")) for e in es], max_new_tokens=8)
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 4, temperature=0.7)
    return RewardForm(task, assigner=assigner), policy


def released(task, seed=0):
    rules = Rules(task)
    episodes = [sampled.episode for sampled in play_random(rules, 6, seed)]
    return episodes, rules.release(episodes, [0] * len(episodes))


def test_attention_is_the_policy_s_own(letters):
    task, policy = parts(letters, PolicyAttention())
    bind_policy(task, policy)
    episodes, releases = released(task)
    scores = [float(episode.text.count("a")) for episode in episodes]
    expected = Attention(AttentionWeights(policy.model.lm))(scores, episodes)
    for release, mine in zip(releases, expected, strict=True):
        np.testing.assert_allclose(release.token_rewards, mine, atol=1e-6)


def test_continuations_are_the_policy_s_and_drawn_by_the_texts(letters):
    task, policy = parts(letters, PolicyMonteCarlo())
    bind_policy(task, policy)
    assert task.assigner.continuations.asked.policy.temperature == 0.7
    episodes, first = released(task)
    policy._generator.manual_seed(99)  # nothing that the learner draws matters
    again = released(task)[1]
    assert any(np.count_nonzero(release.token_rewards) > 1 for release in first)
    for episode, one, other in zip(episodes, first, again, strict=True):
        np.testing.assert_array_equal(one.token_rewards, other.token_rewards)
        assert one.token_rewards.sum() == pytest.approx(episode.text.count("a"), abs=1e-6)
    assert task.assigner.reward_calls > 0


def test_copies_of_the_assigner_ask_the_same_policy(letters):
    task, policy = parts(letters, PolicyMonteCarlo())
    twin = copy.deepcopy(task.assigner)
    bind_policy(task, policy)
    assert twin.continuations.asked is task.assigner.continuations.asked


def test_without_a_policy_it_says_who_hands_one_over(letters):
    for assigner in (PolicyAttention(), PolicyMonteCarlo()):
        task, _ = parts(letters, assigner)
        with pytest.raises(ValueError, match=r"has none; textgym train hands it over.*bind_policy"):
            released(task)


def test_short_names_of_both_kinds_are_known():
    assert isinstance(make_assigner("attention"), PolicyAttention)
    assert isinstance(make_assigner("monte_carlo"), PolicyMonteCarlo)
    assert isinstance(make_assigner("uniform"), Uniform)
    assert make_assigner(None) is None
    with pytest.raises(ValueError, match="no assigner 'montecarlo'") as caught:
        make_assigner("montecarlo")
    assert "attention, monte_carlo" in caught.value.__notes__[0]


@pytest.mark.parametrize("name", ["attention", "monte_carlo"])
def test_a_run_hands_the_policy_over(tmp_path, name):
    small: dict[str, Any] = {
        "layers": 1,
        "width": 16,
        "heads": 2,
        "num_slots": 8,
        "warmup_steps": 0,
        "eval_episodes": 8,
        "updates": 2,
    }
    done = train(
        TrainConfig(task="copying", task_args={"length": 2}, assigner=name, out=tmp_path / name, device="cpu", **small)
    )
    rewards = [release.token_rewards for _, release in done.examples_after]
    assert len(rewards) == 4
    assert all(np.isfinite(each).all() for each in rewards)
