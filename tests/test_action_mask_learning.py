"""Action masks in our own learner: sampled under, recorded, and in log-probs, entropies, KL and gradients alike."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_kit import build_lm
from textgym_agents import PPO, PPOConfig
from textgym_agents import head as head_module
from textgym_agents.collector import Collector
from textgym_agents.head import Allowed, token_logprobs
from textgym_agents.minibatch import Passes
from textgym_agents.model import ActorCritic
from textgym_agents.policy import CausalLMPolicy, Step
from textgym_agents.sampling import Sampling, sample
from torch import nn

import textgym

DISABLED = gym.vector.AutoresetMode.DISABLED


def build(family="gpt2", slots=4, output="torch", **sampling):
    """An environment whose task enforces a grammar, and a model with more logits than the tokenizer has tokens."""
    options = {"enforce_grammar": True, "autoreset_mode": DISABLED, "output": output}
    envs = textgym.TextGenVectorEnv(slots, "number_duel", **options)
    envs.reset(seed=0)
    model = ActorCritic(build_lm(family, envs.rules.vocab_size + 3), envs.rules.tokenizer, envs.rules.context_length)
    return envs, CausalLMPolicy(model, slots, seed=0, **sampling)


def test_two_allowed_tokens_share_the_probability_by_hand():
    logits = torch.log(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    allowed = torch.tensor([[False, True, False, True]])
    for uniform, token, probability in ((0.0, 1, 1 / 3), (0.33, 1, 1 / 3), (0.34, 3, 2 / 3), (0.999999, 3, 2 / 3)):
        tokens, logprobs = sample(logits, torch.tensor([uniform]), Sampling(), allowed)
        assert tokens.tolist() == [token] and logprobs.item() == pytest.approx(math.log(probability), abs=1e-6)
    tokens, logprobs = sample(logits, torch.tensor([0.1]), Sampling(top_k=1), allowed)  # the first among the allowed ones
    assert tokens.tolist() == [3] and logprobs.item() == 0.0
    states, head = torch.eye(1), nn.Linear(1, 4, bias=False)
    head.weight.data = logits.T.clone()
    rows = Allowed(allowed, torch.tensor([0]))
    logprob, entropy = token_logprobs(states, head, torch.tensor([3]), 4, allowed=rows)
    assert logprob.item() == pytest.approx(math.log(2 / 3))
    assert entropy.item() == pytest.approx(math.log(3) / 3 + 2 / 3 * math.log(1.5))


@pytest.mark.parametrize("chunk", [14, 1000])  # two tokens at a time, whose logits are computed again; or all at once
def test_gradients_under_a_mask_are_finite_differences_and_0_for_forbidden_tokens(monkeypatch, chunk):
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in ((5, 3), (9, 3), (9,))
    )
    rows = torch.rand(3, 7, generator=generator) < 0.5
    rows[:, 2] = True
    rows[:, 6] = False
    numbers, tokens = torch.tensor([0, 1, 2, 1, 0]), torch.full((5,), 2)

    def figures(states, weight, bias):
        return head_module._TokenLogprobs.apply(states, weight, bias, tokens, 7, 1.7, rows, numbers)

    assert torch.autograd.gradcheck(figures, (states, weight, bias))
    logprobs, entropies = figures(states, weight, bias)
    (logprobs.sum() + entropies.sum()).backward()
    assert weight.grad[:6].any() and not weight.grad[6:].any()  # token 6 is never allowed; 7 and 8 are padding
    assert not bias.grad[6:].any()


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])  # the head's own backward pass, and capped logits in chunks
def test_one_pass_over_whole_texts_gives_what_was_sampled_under_the_masks(family):
    envs, policy = build(family)
    rollout = Collector(envs, policy).collect(8)
    assert rollout.is_success.all()  # what the grammar allows is well-formed, from an untrained model too
    logprobs, values = Passes("padded", 4096, 1.0).evaluate(policy.model, rollout, 4)
    mask = rollout.agent_mask
    assert torch.allclose(logprobs[mask], rollout.logprobs[mask], atol=1e-4)
    assert torch.allclose(values[mask], rollout.values[mask], atol=1e-4)
    bare, _, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, mask)
    assert (bare[mask] < logprobs[mask] - 0.1).any()
    _, _, entropy = policy.evaluate(rollout.ids, rollout.prompt_lengths, mask, rollout.allowed)
    assert entropy[:, 0].abs().max() < 1e-5  # "A" is the only first token
    assert (entropy[:, 3:5] > 0).all() and (entropy[:, 3:5] <= math.log(10) + 1e-5).all()
    (policy.evaluate(rollout.ids, rollout.prompt_lengths, mask, rollout.allowed)[2].sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.model.parameters() if p.grad is not None)


def test_each_token_is_recorded_with_a_number_whose_mask_allows_it():
    envs, policy = build(output="numpy")
    rollout = Collector(envs, policy).collect(8)
    rows, numbers = rollout.allowed
    assert rows.shape == (len(envs.rules.masks.table), envs.rules.vocab_size)
    for episode in range(8):
        start, count = int(rollout.prompt_lengths[episode]), int(rollout.num_tokens[episode])
        ids = rollout.ids[episode, start : start + count]
        assert rows[numbers[episode, :count], ids].all()
        expected = envs.rules.task.mask_numbers([None] * count, [ids[:t].numpy() for t in range(count)])
        assert numbers[episode, :count].tolist() == expected.tolist()


@pytest.mark.parametrize("options", [{}, {"kl_coef": 0.1, "kl_in": "loss", "kl_estimator": "k3"}])
def test_an_update_starts_at_ratio_1_and_the_reference_is_masked_too(options):
    envs, policy = build()
    config = PPOConfig(episodes_per_update=8, minibatch_episodes=8, epochs=1, **options)
    agent = PPO(policy, config, seed=0)
    figures = agent.update(envs)
    assert abs(figures["approx_kl"]) < 1e-6 and figures["clip_fraction"] == 0
    assert 0 < figures["entropy"] < math.log(10)
    if options:
        assert abs(figures["kl_loss"]) < 1e-6  # the reference is the policy still


def test_top_p_is_of_the_allowed_tokens_and_evaluation_weighs_them():
    envs, policy = build(top_p=0.7)
    figures = PPO(policy, PPOConfig(episodes_per_update=8, minibatch_episodes=8, epochs=1)).update(envs)
    assert math.isfinite(figures["importance_weight"]) and figures["importance_weight"] > 0


def test_a_policy_that_does_not_ask_for_masks_is_refused():
    class Blind:
        def act(self, obs, slots):
            return Step(torch.zeros(len(slots), dtype=torch.int64), torch.zeros(len(slots)), torch.zeros(len(slots)))

        def reset_slots(self, slots):
            pass

    envs, _ = build()
    with pytest.raises(ValueError, match=r"NumberDuel has action masks but Blind\.act does not ask for them; .*'allowed'"):
        Collector(envs, Blind())


def test_a_rollout_of_a_task_without_masks_holds_none():
    envs = textgym.TextGenVectorEnv(2, "number_duel", autoreset_mode=DISABLED, output="torch")
    envs.reset(seed=0)
    model = ActorCritic(build_lm("gpt2", envs.rules.vocab_size), envs.rules.tokenizer, envs.rules.context_length)
    rollout = Collector(envs, CausalLMPolicy(model, 2)).collect(2)
    assert rollout.allowed is None and np.isfinite(rollout.logprobs.numpy()).all()
