import pytest
import torch
from agent_kit import CONTEXT, build_lm, play_kit, weights
from textgym_agents import ActorCritic, CausalLMPolicy
from textgym_agents.ilql import ILQL, ILQLConfig, QModel

SMALL = {"episodes_per_update": 8, "steps_per_update": 4, "minibatch_episodes": 8}


def test_the_policy_is_pi_beta_times_exp_of_beta_times_the_advantage(letters):
    policy, _ = play_kit(letters)
    model = QModel(policy.model, beta=2.0)
    hidden = torch.randn(3, model.policy_size, generator=torch.Generator().manual_seed(0))
    base = policy.model.logits(hidden).softmax(-1)
    assert torch.allclose(model.logits(hidden).softmax(-1), base, atol=1e-6)  # Q starts at 0
    with torch.no_grad():
        for i, head in enumerate(model.slow_heads):
            head[-1].bias.copy_(torch.arange(len(letters)) * (0.1 + 0.1 * i) - i)  # the smaller of the two counts
    q = torch.minimum(torch.arange(len(letters)) * 0.1, torch.arange(len(letters)) * 0.2 - 1)
    expected = base * (2.0 * q).exp()
    assert torch.allclose(model.logits(hidden).softmax(-1), expected / expected.sum(-1, keepdim=True), atol=1e-5)


def test_what_is_sampled_has_the_logprob_that_is_reported(letters):
    policy, envs = play_kit(letters)
    agent = ILQL(policy, ILQLConfig(**SMALL))
    with torch.no_grad():
        agent.model.slow_heads[0][-1].bias[4] = agent.model.slow_heads[1][-1].bias[4] = 50.0
    obs, _ = envs.reset(seed=0)
    step = agent.policy.act(obs, torch.arange(8).numpy())
    assert step.tokens.tolist() == [4] * 8
    assert step.logprobs.abs().max() < 1e-3


def test_it_learns_to_write_what_is_paid(letters):
    policy, envs = play_kit(letters, num_slots=32)
    seen = []
    config = ILQLConfig(episodes_per_update=32, minibatch_episodes=32, learning_rate=3e-3, beta=8.0)
    ILQL(policy, config).learn(envs, 32 * 12, seen.append)
    assert seen[-1]["return"] > seen[0]["return"] + 2
    assert {"q_loss", "value_loss", "cql_loss", "clone_loss"} <= set(seen[0])


def test_what_was_saved_plays_the_same(letters, tmp_path):
    policy, envs = play_kit(letters)
    agent = ILQL(policy, ILQLConfig(**SMALL))
    agent.learn(envs, 16)
    agent.save(tmp_path)
    other = ILQL(play_kit(letters, seed=5)[0], ILQLConfig(**SMALL), seed=5)
    other.load(tmp_path)
    assert torch.equal(weights(agent.policy), weights(other.policy))


def test_nothing_is_drawn_from_the_global_generator_F34(letters):
    policy, _ = play_kit(letters)
    before = torch.random.get_rng_state()
    ILQL(policy)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_separate_value_model_is_refused(letters):
    lm = build_lm("gpt2", len(letters))
    policy = CausalLMPolicy(ActorCritic(lm, letters, CONTEXT, build_lm("gpt2", len(letters), seed=1)), 2)
    with pytest.raises(ValueError, match="leave out the separate value model"):
        ILQL(policy)


@pytest.mark.parametrize("changes", [{"expectile": 1.0}, {"beta": -1.0}, {"capacity": 0}, {"target_rate": 0.0}], ids=str)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ILQLConfig(**changes)
