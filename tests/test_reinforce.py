import pytest
import torch
from agent_kit import CONTEXT, build_lm, gradients, play_kit, weights
from textgym_agents import ActorCritic, CausalLMPolicy, collect
from textgym_agents.groups import rewards_to_go
from textgym_agents.reinforce import Reinforce, ReinforceConfig

from textgym import Span
from textgym.credit import NonCausalCreditWarning

SMALL = {"episodes_per_update": 8}


def test_one_step_follows_the_formula(letters):
    """The gradient of one update is that of -mean (G_t - b_k) log pi, written out by hand."""
    policy, envs = play_kit(letters, seed=3)
    agent = Reinforce(policy, ReinforceConfig(max_grad_norm=1e9, **SMALL))
    agent.learn(envs, 8)
    other, envs = play_kit(letters, seed=3)
    rollout = collect(envs, other, 8)
    logprobs, _, _ = other.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    returns = rollout.token_rewards.flip(1).cumsum(1).flip(1)  # one stream, and every token is the agent's
    mask = rollout.agent_mask
    loss = -((returns - returns[mask].mean()) * logprobs)[mask].mean()
    loss.backward()
    assert torch.allclose(gradients(policy), gradients(other), atol=1e-5)


def test_it_learns_to_write_what_is_paid(letters):
    policy, envs = play_kit(letters, num_slots=32)
    seen = []
    Reinforce(policy, ReinforceConfig(episodes_per_update=32, learning_rate=1e-2)).learn(envs, 32 * 25, seen.append)
    assert [figures["episodes"] for figures in seen[:2]] == [32, 64]
    assert seen[-1]["return"] > seen[0]["return"] + 2


def test_without_a_baseline_a_constant_reward_pushes(letters):
    moved = []
    for baseline in (True, False):
        # every text is cut after one token, so that all rewards-to-go are the same
        policy, envs = play_kit(letters, lambda episodes: [1.0] * len(episodes), max_new_tokens=1)
        before = weights(policy)
        Reinforce(policy, ReinforceConfig(baseline=baseline, **SMALL)).learn(envs, 8)
        moved.append(not torch.equal(before, weights(policy)))
    assert moved == [False, True]


def paid(episodes):
    """The second letter is paid for being 'c', in a stream of its own."""
    return [
        [Span(0, 1, 0.0, stream=0), Span(1, 2, float(e.text[1] == "c"), stream=1)] if len(e.text) > 1 else [] for e in episodes
    ]


def test_what_the_second_stream_gets_never_moves_the_first_F07(letters):
    moved = []
    for streams in (True, False):
        reward_fn = paid if streams else lambda episodes: [sum(span.reward for span in spans) for spans in paid(episodes)]
        policy, envs = play_kit(letters, reward_fn, max_new_tokens=2)
        rollout = collect(envs, policy, 64)
        assert rollout.token_rewards.sum() > 0
        moved.append(bool(rewards_to_go(rollout.token_rewards, rollout.streams, rollout.agent_mask)[:, 0].any()))
    assert moved == [False, True]


@pytest.mark.parametrize("changes", [{"episodes_per_update": 0}, {"learning_rate": 0.0}, {"max_grad_norm": -1.0}], ids=str)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ReinforceConfig(**changes)


def test_a_budget_below_one_update_is_refused(letters):
    policy, envs = play_kit(letters)
    with pytest.raises(ValueError, match="budget is 7 episodes, less than one update of 8"):
        Reinforce(policy, ReinforceConfig(**SMALL)).learn(envs, 7)


def test_where_sampling_leaves_tokens_out_they_are_weighted(letters):
    def build():
        _, envs = play_kit(letters, seed=3)
        return CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 8, seed=3, top_k=3), envs

    policy, envs = build()
    Reinforce(policy, ReinforceConfig(max_grad_norm=1e9, baseline=False, **SMALL)).learn(envs, 8)
    other, envs = build()
    rollout = collect(envs, other, 8)
    logprobs, _, _ = other.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    returns = rollout.token_rewards.flip(1).cumsum(1).flip(1)
    weights = (logprobs.detach() - rollout.logprobs).exp()
    (-(weights * returns * logprobs)[rollout.agent_mask].mean()).backward()
    assert torch.allclose(gradients(policy), gradients(other), atol=1e-5)


def test_a_share_that_reward_to_go_can_erase_is_warned_about_F08(letters):
    policy, envs = play_kit(letters, assigner="uniform")
    with pytest.warns(NonCausalCreditWarning, match="Uniform is not causal"):
        Reinforce(policy, ReinforceConfig(**SMALL)).learn(envs, 8)
