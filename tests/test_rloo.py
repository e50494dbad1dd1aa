import warnings

import pytest
import torch
from agent_kit import CONTEXT, build_lm, build_rollout, gradients, play_kit, weights
from textgym_agents import ActorCritic, CausalLMPolicy, collect
from textgym_agents.best_of_n import BestOfN, BestOfNConfig
from textgym_agents.rloo import GRPO, RLOO, GRPOConfig, RLOOConfig

from textgym.credit import NonCausalCreditWarning

SMALL = {"episodes_per_update": 8, "minibatch_episodes": 8}


def test_one_step_is_that_of_log_pi_weighted_with_what_the_others_got(letters):
    policy, envs = play_kit(letters, group_size=2, seed=3)
    RLOO(policy, RLOOConfig(max_grad_norm=1e9, **SMALL)).learn(envs, 8)
    other, envs = play_kit(letters, group_size=2, seed=3)
    rollout = collect(envs, other, 8)
    returns = rollout.token_rewards.sum(1)
    order = rollout.episode_id.argsort()
    assert (order == torch.arange(8)).all()
    assert (rollout.group_id - rollout.group_id[0]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    advantages = returns - returns.reshape(4, 2).flip(1).flatten()  # of two, the other one is the baseline
    logprobs, _, _ = other.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    (-(advantages[:, None] * logprobs)[rollout.agent_mask].mean()).backward()
    assert torch.allclose(gradients(policy), gradients(other), atol=1e-5)


def test_the_prompts_of_a_group_are_the_same(letters):
    policy, envs = play_kit(letters, group_size=4)
    rollout = collect(envs, policy, 8)
    for group in rollout.group_id.unique():
        rows = rollout.group_id == group
        assert rows.sum() == 4
        assert rollout.prompt_lengths[rows].unique().numel() == 1


def test_an_environment_without_groups_is_refused(letters):
    policy, envs = play_kit(letters)
    with pytest.raises(ValueError, match=r"group_size is 1 and the agent's 2; make it with .*group_size=2"):
        RLOO(policy, RLOOConfig(**SMALL)).learn(envs, 8)


@pytest.mark.parametrize("kind", [RLOO, GRPO])
def test_it_learns_to_write_what_is_paid(letters, kind):
    policy, envs = play_kit(letters, num_slots=32, group_size=4)
    seen = []
    config = (GRPOConfig if kind is GRPO else RLOOConfig)(
        episodes_per_update=32, minibatch_episodes=32, learning_rate=3e-3, group_size=4
    )
    kind(policy, config).learn(envs, 32 * 20, seen.append)
    assert seen[-1]["return"] > seen[0]["return"] + 2
    assert seen[0]["alone"] == 0


def test_rest_compares_tokens_of_the_same_number_in_their_stream(letters):
    policy, _ = play_kit(letters)
    # row 0: rewards 1 and 2 on its first and second own token; row 1: -1 on its only one
    rollout = build_rollout(group_id=torch.tensor([4, 4]))
    for credit, expected, lonely in (
        ("stream", [[3 + 1, 0, 3 + 1], [-1 - 3, 0, 0]], 0),
        ("rest", [[3 + 1, 0, 2], [-1 - 3, 0, 0]], 1),  # nobody else has a second token: its baseline is 0
    ):
        advantages, alone = RLOO(policy, RLOOConfig(credit=credit)).advantages(rollout)
        assert advantages.tolist() == expected
        assert alone.sum() == lonely


def test_a_reference_holds_the_policy_back(letters):
    moved = []
    for kl_coef in (0.0, 50.0):
        policy, envs = play_kit(letters, group_size=2)
        start, seen = weights(policy), []
        config = GRPOConfig(kl_coef=kl_coef, epochs=4, learning_rate=1e-2, **SMALL)
        GRPO(policy, config).learn(envs, 64, seen.append)
        moved.append(float((weights(policy) - start).norm()))
        assert ("kl_loss" in seen[0]) == bool(kl_coef)
    assert moved[1] < moved[0]


@pytest.mark.parametrize("changes", [{"group_size": 1}, {"epochs": 0}, {"kl_coef": -1.0}, {"clip_coef": 0.0}], ids=str)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        RLOOConfig(**changes)


@pytest.mark.parametrize("kind", [RLOO, BestOfN])
def test_groups_stay_whole_where_a_collection_has_more_episodes_than_slots(letters, kind):
    """Texts of one group end at different times; if its slots went on by themselves, they would never share a prompt again."""
    policy, envs = play_kit(letters, group_size=2)
    config = (RLOOConfig if kind is RLOO else BestOfNConfig)(episodes_per_update=32, minibatch_episodes=32, learning_rate=1e-5)
    agent, seen = kind(policy, config), []
    agent.learn(envs, 32 * 6, seen.append)
    rollout = collect(envs, policy, 32)
    groups, sizes = rollout.group_id.unique(return_counts=True)
    assert sizes.tolist() == [2] * 16
    for group in groups:
        rows = (rollout.group_id == group).nonzero()[:, 0]
        assert rollout.prompt_lengths[rows].unique().numel() == 1
    assert all(figures.get("alone", 0) == 0 for figures in seen)


def test_episodes_that_are_no_whole_groups_are_refused(letters):
    with pytest.raises(ValueError, match=r"episodes_per_update is 9 and group_size 2; give a multiple, such as 8"):
        RLOOConfig(episodes_per_update=9)
    policy, envs = play_kit(letters, group_size=2)
    with pytest.raises(ValueError, match=r"episodes is 9 but slots are in groups of 2"):
        collect(envs, policy, 9)


@pytest.mark.parametrize("sampling", [{"top_k": 3}, {"top_p": 0.6}], ids=str)
def test_where_sampling_leaves_tokens_out_ratios_start_at_1_and_tokens_are_weighted(letters, sampling):
    def build():
        _, envs = play_kit(letters, group_size=2, seed=3)
        return CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 8, seed=3, **sampling), envs

    (policy, envs), seen = build(), []
    RLOO(policy, RLOOConfig(max_grad_norm=1e9, **SMALL)).learn(envs, 8, seen.append)
    assert (seen[0]["clip_fraction"], seen[0]["approx_kl"]) == (0, pytest.approx(0, abs=1e-6))
    other, envs = build()
    rollout = collect(envs, other, 8)
    returns, mask = rollout.token_rewards.sum(1), rollout.agent_mask
    advantages = returns - returns.reshape(4, 2).flip(1).flatten()
    logprobs, _, _ = other.evaluate(rollout.ids, rollout.prompt_lengths, mask)
    weights = (logprobs.detach() - rollout.logprobs).exp()
    assert (weights[mask] < 0.999).any()
    (-(weights * advantages[:, None] * logprobs)[mask].mean()).backward()
    assert torch.allclose(gradients(policy), gradients(other), atol=1e-5)


def test_a_share_booked_too_early_is_warned_about_where_rewards_to_go_are_compared_F08(letters):
    for credit, warned in (("rest", [NonCausalCreditWarning]), ("stream", [])):
        policy, envs = play_kit(letters, group_size=2, assigner="uniform")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            RLOO(policy, RLOOConfig(credit=credit, **SMALL)).learn(envs, 8)
        assert [each.category for each in said] == warned
