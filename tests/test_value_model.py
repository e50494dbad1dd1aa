from dataclasses import replace

import pytest
import torch
from agent_kit import CONTEXT, build_lm
from gymnasium.vector import AutoresetMode
from textgym_agents import ActorCritic, CausalLMPolicy
from textgym_agents.collector import collect
from textgym_agents.minibatch import Passes
from textgym_agents.ppo import PPO, PPOConfig
from transformers import AutoModel

from textgym import PromptTask, TextGenVectorEnv


def build(letters, family="gpt2", value_family="llama"):
    value_lm = build_lm(value_family, len(letters), seed=1)
    model = ActorCritic(build_lm(family, len(letters)), letters, CONTEXT, value_lm)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    return model, value_lm


def own_values(model, value_lm, text):
    """The definition: the value head on the value model's own last state."""
    states = value_lm.base_model(input_ids=torch.tensor([text])).last_hidden_state
    return (states @ model.value_head.weight.T + model.value_head.bias)[0, :, 0]


@pytest.mark.parametrize(("family", "value_family"), [("gpt2", "llama"), ("mistral", "mistral"), ("gemma2", "gemma3_text")])
def test_values_are_the_second_models_and_logits_the_firsts(letters, family, value_family):
    model, value_lm = build(letters, family, value_family)
    ids = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9, 10]])
    logprobs, values, _ = model(ids, torch.tensor([2]), torch.ones(1, 7, dtype=torch.bool))
    assert torch.allclose(values[0], own_values(model, value_lm, ids[0].tolist())[1:-1], atol=1e-5)
    expected = model.lm(input_ids=ids).logits.log_softmax(-1)[0, 1:-1].gather(1, ids[0, 2:, None])[:, 0]
    assert torch.allclose(logprobs[0], expected, atol=1e-5)


@pytest.mark.parametrize("how", ["packed", "sorted", "padded"])
def test_values_of_a_collection_are_read_in_one_pass_and_those_of_final_states_too(letters, how):
    """While texts are written no value is computed; truncated texts have a final state, whose value is asked for as well."""
    model, value_lm = build(letters)
    task = PromptTask(["a", "bcd"], letters, lambda episodes: [1.0] * len(episodes), max_new_tokens=6)
    task.length_limit = "truncate"
    envs = TextGenVectorEnv(4, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    rollout = collect(envs, CausalLMPolicy(model, 4), 12)
    assert not rollout.values.any() and rollout.truncated.any() and rollout.terminated.any()
    assert rollout.num_tokens.min() < rollout.num_tokens.max()
    ended = torch.arange(len(rollout)) % 2 == 0  # short texts too: their final state stands where others have tokens
    rollout = replace(rollout, truncated=rollout.truncated | ended)
    values, final_values = Passes(how, 64, 1.0).values(model, rollout, 5)
    assert values.shape == rollout.values.shape and torch.equal(final_values != 0, rollout.truncated)
    for row in range(len(rollout)):
        start, count = int(rollout.prompt_lengths[row]), int(rollout.num_tokens[row])
        own = own_values(model, value_lm, rollout.ids[row, : start + count].tolist())
        assert torch.allclose(values[row, :count], own[start - 1 : -1], atol=1e-5)
        assert not values[row, count:].any()
        assert final_values[row].item() == pytest.approx(own[-1].item() if rollout.truncated[row] else 0.0, abs=1e-5, rel=1e-5)


def test_ppo_learns_from_values_that_were_read_afterwards(letters):
    model, _ = build(letters)

    def pay(episodes):
        return [float(episode.prompt.text == "a") for episode in episodes]

    task = PromptTask(["a", "bcd"], letters, pay, max_new_tokens=6)
    envs = TextGenVectorEnv(4, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    config = PPOConfig(episodes_per_update=32, minibatch_episodes=16, learning_rate=3e-3, anneal=False)
    ppo = PPO(CausalLMPolicy(model, 4), config)
    explained = [ppo.update(envs)["explained_variance"] for _ in range(10)]
    assert explained[-1] > 0.8 > explained[0]  # values of 0 explain nothing


def test_the_value_loss_does_not_reach_the_language_model(letters):
    model, _ = build(letters)
    ids = torch.tensor([[2, 3, 4, 5]])
    model(ids, torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool))[1].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.lm.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.value_lm.parameters())


def test_a_saved_value_model_is_loaded_and_an_ordinary_model(letters, tmp_path):
    model, _ = build(letters)
    model.save(tmp_path)
    other = ActorCritic(build_lm("gpt2", len(letters), seed=3), letters, CONTEXT, build_lm("llama", len(letters), seed=4))
    other.load(tmp_path)
    text = (torch.tensor([[2, 3, 4, 5]]), torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool))
    for a, b in zip(model(*text), other(*text), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert AutoModel.from_pretrained(tmp_path / "value").config.model_type == "llama"
    with pytest.raises(ValueError, match="holds a value model but this model has none"):
        ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT).load(tmp_path)


def test_values_can_start_from_the_language_models_weights(letters):
    model, _ = build(letters, "gpt2", "gpt2")
    assert not torch.equal(model.value_lm.wte.weight, model.lm.transformer.wte.weight)
    model.start_values_from_policy()
    assert torch.equal(model.value_lm.wte.weight, model.lm.transformer.wte.weight)
    assert model.value_lm.wte.weight is not model.lm.transformer.wte.weight


def test_value_models_that_cannot_read_the_same_masks_are_refused(letters):
    lm = build_lm("gpt2", len(letters))
    with pytest.raises(ValueError, match="the value model's sliding windows is"):
        ActorCritic(lm, letters, CONTEXT, build_lm("mistral", len(letters)))
    with pytest.raises(ValueError, match=r"dtype is torch.bfloat16 but the language model's is torch.float32"):
        ActorCritic(lm, letters, CONTEXT, build_lm("gpt2", len(letters)).bfloat16())
    with pytest.raises(ValueError, match="embeddings but the tokenizer has"):
        ActorCritic(lm, letters, CONTEXT, build_lm("gpt2", len(letters) - 1))
