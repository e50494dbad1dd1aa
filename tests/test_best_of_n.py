import pytest
import torch
from agent_kit import gradients, play_kit, weights
from textgym_agents import collect
from textgym_agents.best_of_n import BestOfN, BestOfNConfig

SMALL = {"episodes_per_update": 8, "minibatch_episodes": 8, "epochs": 1}


def test_one_step_raises_the_likelihood_of_the_best_of_each_group(letters):
    policy, envs = play_kit(letters, group_size=4, seed=3)
    BestOfN(policy, BestOfNConfig(group_size=4, max_grad_norm=1e9, **SMALL)).learn(envs, 8)
    other, envs = play_kit(letters, group_size=4, seed=3)
    rollout = collect(envs, other, 8)
    returns = rollout.token_rewards.sum(1).reshape(2, 4)
    assert (returns.std(1) > 0).all()
    best = returns.argmax(1) + torch.tensor([0, 4])
    mask = rollout.agent_mask[best]
    logprobs, _, _ = other.evaluate(rollout.ids[best], rollout.prompt_lengths[best], mask)
    (-logprobs[mask].mean()).backward()
    assert torch.allclose(gradients(policy), gradients(other), atol=1e-5)


def test_groups_of_equals_teach_nothing(letters):
    policy, envs = play_kit(letters, lambda episodes: [1.0] * len(episodes), group_size=2)
    before, seen = weights(policy), []
    BestOfN(policy, BestOfNConfig(**SMALL)).learn(envs, 8, seen.append)
    assert torch.equal(before, weights(policy))
    assert seen[0]["kept"] == 0


def test_it_learns_to_write_what_is_paid(letters):
    policy, envs = play_kit(letters, num_slots=32, group_size=4)
    seen = []
    config = BestOfNConfig(episodes_per_update=32, minibatch_episodes=8, group_size=4, learning_rate=5e-3)
    BestOfN(policy, config).learn(envs, 32 * 12, seen.append)
    assert seen[-1]["return"] > seen[0]["return"] + 2


@pytest.mark.parametrize("changes", [{"group_size": 1}, {"epochs": 0}, {"learning_rate": 0.0}], ids=str)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        BestOfNConfig(**changes)
