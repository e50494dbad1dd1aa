import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor
from textgym_agents import ActorCritic, tiny_gpt2
from textgym_agents.integrations.sb3_policy import LanguageModelPolicy, texts_of
from transformers import LlamaConfig, LlamaForCausalLM

import textgym
from textgym import Task, symbol_tokenizer
from textgym.integrations.sb3 import TextGenVecEnv, TokenRewardBuffer, TokenRewards

TOKENIZER = symbol_tokenizer([*"abcde"])
LONGEST = 12


class Letters(Task):
    """An a earns 1, and prompts have one to three letters."""

    max_prompt_tokens = 3
    max_new_tokens = LONGEST
    tokenizer = TOKENIZER

    def sample(self, rng):
        return textgym.Prompt("".join("abcde"[i] for i in rng.integers(5, size=rng.integers(1, 4))))

    def rewards(self, episodes):
        return [(e.ids == TOKENIZER.encode("a")[0]).astype(float) for e in episodes]


def random_head(model):
    """A value head that starts at 0 would hide what goes wrong with values."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.nn.init.normal_(model.value_head.weight, std=0.3)
    return model


def gpt2():
    return random_head(ActorCritic(tiny_gpt2(len(TOKENIZER), LONGEST + 3, width=16), TOKENIZER, LONGEST + 3))


def llama():
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=LONGEST + 3, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return random_head(ActorCritic(LlamaForCausalLM(config), TOKENIZER, LONGEST + 3))


def make_env(slots=5):
    return VecMonitor(TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=slots, task=Letters())))


def make(kind=PPO, make_model=gpt2, slots=5, **kwargs):
    options = {"n_steps": 8, **({"batch_size": 20, "n_epochs": 2} if kind is PPO else {}), **kwargs}
    return kind(
        LanguageModelPolicy, make_env(slots), policy_kwargs={"make_model": make_model, **options.pop("policy_kwargs", {})},
        rollout_buffer_class=TokenRewardBuffer, rollout_buffer_kwargs={"whole_texts": True}, seed=0, device="cpu", **options,
    )  # fmt: skip


def naive(policy, obs, tokens):
    """One text at a time, the whole of it, with the Hugging Face model alone: log-probs, values, entropies."""
    model, found = policy.model, []
    for text, token in zip(obs, tokens, strict=True):
        out = model.lm(input_ids=text[text >= 0][None], output_hidden_states=True)
        table = (out.logits[0, -1] / policy.temperature).log_softmax(-1)
        found.append(
            torch.stack([table[token], model.value_head(out.hidden_states[-1][0, -1])[0], -(table.exp() * table).sum()])
        )
    return torch.stack(found, 1)


@pytest.mark.parametrize("make_model", [gpt2, llama])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_playing_and_learning_give_what_the_naive_policy_gives(make_model, temperature):
    model = make(make_model=make_model, policy_kwargs={"temperature": temperature})
    policy, env = model.policy, model.get_env()
    obs, seen, chosen, ended = env.reset(), [], [], 0
    for _ in range(30):
        texts = torch.from_numpy(obs)
        tokens, values, logprobs = policy(texts)
        with torch.no_grad():
            expected = naive(policy, texts, tokens)
        torch.testing.assert_close(torch.stack([logprobs, values[:, 0]]), expected[:2], atol=1e-4, rtol=0)
        torch.testing.assert_close(policy.predict_values(texts)[:, 0], expected[1], atol=1e-4, rtol=0)
        torch.testing.assert_close(policy.get_distribution(texts).log_prob(tokens), expected[0], atol=1e-4, rtol=0)
        seen.append(texts)
        chosen.append(tokens)
        obs, _, dones, _ = env.step(tokens.numpy())
        ended += dones.sum()
    assert ended > 10
    steps, tokens = torch.cat(seen), torch.cat(chosen)
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(steps)))
    values, logprobs, entropy = policy.evaluate_actions(steps[shuffled], tokens[shuffled])
    expected = naive(policy, steps[shuffled], tokens[shuffled])
    torch.testing.assert_close(torch.stack([logprobs, values[:, 0], entropy]), expected, atol=1e-4, rtol=0)
    # and so do the gradients
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(3, len(steps)))).float()
    parameters = list(policy.parameters())
    ours = torch.autograd.grad((torch.stack([logprobs, values[:, 0], entropy]) * weights).sum(), parameters)
    theirs = torch.autograd.grad((expected * weights).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [PPO, A2C])
def test_sb3_learns_through_the_language_model(kind):
    model = make(
        kind,
        learning_rate=1e-2 if kind is PPO else 3e-3,
        gamma=1.0,
        gae_lambda=1.0,
        **({"n_steps": 8} if kind is PPO else {"n_steps": 9}),
    )
    before = [parameter.clone() for parameter in model.policy.model.lm.parameters()]
    returns = [np.mean(evaluate_policy(model, make_env(), 40, deterministic=False)[0])]
    model.learn(1200 if kind is PPO else 3000, callback=TokenRewards())
    returns.append(np.mean(evaluate_policy(model, make_env(), 40, deterministic=False)[0]))
    assert returns[1] > returns[0] + 2, returns
    after = model.policy.model.lm.parameters()
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert model.rollout_buffer.tokens_learned + model.rollout_buffer.tokens_held == model.num_timesteps


def test_a_minibatch_of_whole_texts_takes_one_pass_per_text(monkeypatch):
    model = make(PPO, n_steps=40)
    sizes = []
    forward = ActorCritic.forward
    monkeypatch.setattr(
        ActorCritic, "forward", lambda self, *args: sizes.append((len(args[0]), int(args[2].sum()))) or forward(self, *args)
    )
    model.learn(1, callback=TokenRewards())
    buffer = model.rollout_buffer
    assert sum(tokens for _, tokens in sizes) <= 2 * len(buffer.texts)  # two epochs; two texts that are alike are one
    assert sum(texts for texts, _ in sizes) <= 2 * (buffer.texts.max() + 1)


@pytest.mark.parametrize("write", ["optimizer", "load", "vector", "user"])
def test_no_cached_row_outlives_the_weights_that_made_it(write):
    model = make()
    policy, obs = model.policy, torch.from_numpy(model.get_env().reset())
    obs = torch.from_numpy(model.get_env().step(policy(obs)[0].numpy())[0])
    weight = policy.model.lm.transformer.h[0].attn.c_attn.weight
    if write == "optimizer":
        (weight**2).sum().backward()
        policy.optimizer.step()
    elif write == "load":
        policy.load_state_dict({name: tensor * 1.5 for name, tensor in policy.state_dict().items()})
    elif write == "vector":  # SB3's own; puts other tensors into the parameters
        policy.load_from_vector(policy.parameters_to_vector() * 1.5)
    else:
        with torch.no_grad():
            weight[0] += 1.0
    tokens, _, logprobs = policy(obs)
    with torch.no_grad():
        torch.testing.assert_close(logprobs, naive(policy, obs, tokens)[0], atol=1e-4, rtol=0)


def test_evaluation_in_the_middle_of_a_rollout_changes_nothing_in_it():
    found = []
    for evaluates in (False, True):
        model = make()
        policy, env, tokens = model.policy, model.get_env(), []
        env.seed(0)
        obs = env.reset()
        for _ in range(9):
            tokens.append(policy(torch.from_numpy(obs))[0])
            obs = env.step(tokens[-1].numpy())[0]
            if evaluates and len(tokens) == 4:
                evaluate_policy(model, make_env(3), 4)
        found.append(torch.stack(tokens))
    assert torch.equal(*found)


@torch.no_grad()
def test_values_asked_for_on_the_way_are_those_of_the_next_step_and_change_nothing_in_it():
    """SB3 asks at a rollout's end, for all texts at once, and where a text was cut, for that one alone."""
    found = []
    for asks in (False, True):
        model = make()
        policy, env = model.policy, model.get_env()
        env.seed(0)
        obs, said = env.reset(), []
        for step in range(9):
            texts = torch.from_numpy(obs)
            if asks and step > 1:
                expected = naive(policy, texts, torch.zeros(len(texts), dtype=torch.int64))[1]
                values = policy.predict_values(texts)[:, 0]
                torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)
                assert torch.equal(policy.predict_values(texts)[:, 0], values)
                for row in (0, 2):
                    one = slice(row, row + 1)
                    torch.testing.assert_close(policy.predict_values(texts[one])[:, 0], values[one], atol=1e-4, rtol=0)
            tokens, same, logprobs = policy(texts)
            if asks and step > 1:
                assert torch.equal(same[:, 0], values)
                torch.testing.assert_close(logprobs, naive(policy, texts, tokens)[0], atol=1e-4, rtol=0)
            said.append(tokens)
            obs = env.step(tokens.numpy())[0]
        found.append(torch.stack(said))
    assert torch.equal(*found)


@torch.no_grad()
def test_a_rollout_of_many_slots_runs_each_token_once_whatever_values_are_asked_for(monkeypatch):
    model = make(slots=9, batch_size=24)  # for few rows, reading just those that have work costs less than a pass over all
    policy, env, ran = model.policy, model.get_env(), []
    obs = env.reset()
    policy(torch.from_numpy(obs))
    run = ActorCritic.policy_hidden
    monkeypatch.setattr(ActorCritic, "policy_hidden", lambda self, *args: ran.append(args[0].numel()) or run(self, *args))
    for step in range(6):
        obs, _, dones, _ = env.step(np.full(9, TOKENIZER.encode("b")[0]))
        if step % 2:
            policy.predict_values(torch.from_numpy(obs))
        policy(torch.from_numpy(obs))
        assert not dones.any() and sum(ran) == 9 * (step + 1)


def test_a_value_from_before_an_update_is_not_played_on():
    model = make()
    policy, obs = model.policy, torch.from_numpy(model.get_env().reset())
    obs = torch.from_numpy(model.get_env().step(policy(obs)[0].numpy())[0])
    with torch.no_grad():
        policy.predict_values(obs)
        policy.model.lm.transformer.h[0].mlp.c_fc.weight.mul_(2.0)
        tokens, values, logprobs = policy(obs)
        expected = naive(policy, obs, tokens)
    torch.testing.assert_close(torch.stack([logprobs, values[:, 0]]), expected[:2], atol=1e-4, rtol=0)


def test_what_was_played_may_stand_in_a_loss():
    policy, obs = (model := make()).policy, torch.from_numpy(model.get_env().reset())
    tokens, values, logprobs = policy(obs)
    new = policy.evaluate_actions(obs, tokens)[1]
    (new * logprobs * values[:, 0]).sum().backward()
    assert policy.predict_values(obs).requires_grad  # a value that is asked for with gradients has them


def test_predict_is_greedy_when_asked_and_takes_one_text_or_many():
    model = make()
    obs = model.get_env().reset()
    table = model.policy.get_distribution(torch.from_numpy(obs)).distribution.logits
    tokens, _ = model.predict(obs, deterministic=True)
    assert tokens.tolist() == table.argmax(-1).tolist()
    assert model.predict(obs[2], deterministic=True)[0] == tokens[2] and model.predict(obs[2])[0].shape == ()
    greedy, values, logprobs = model.policy(torch.from_numpy(obs), deterministic=True)
    assert greedy.tolist() == tokens.tolist()
    torch.testing.assert_close(logprobs, table.max(-1).values, atol=1e-5, rtol=0)
    assert values.shape == (5, 1)


def test_a_saved_model_is_the_same_model(tmp_path):
    model = make()
    model.learn(70, callback=TokenRewards())
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=make_env(), device="cpu")
    obs = torch.from_numpy(make_env().reset())
    for one, other in zip(model.policy.state_dict().values(), loaded.policy.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    tokens = torch.zeros(len(obs), dtype=torch.int64)
    with torch.no_grad():
        expected = model.policy.evaluate_actions(obs, tokens)
        torch.testing.assert_close(loaded.policy.evaluate_actions(obs, tokens), expected)
    loaded.learn(70, callback=TokenRewards())
    model.policy.save(tmp_path / "policy")
    alone = LanguageModelPolicy.load(tmp_path / "policy", device="cpu")
    assert torch.equal(alone.model.value_head.weight, model.policy.model.value_head.weight)


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=1, max_size=12))
def test_steps_are_found_in_the_fewest_texts(steps):
    """Each step is a text and its last token."""
    obs = np.full((len(steps), 7), -1)
    for row, step in zip(obs, steps, strict=True):
        row[: len(step) - 1] = step[:-1]
    texts = texts_of(obs, np.array([step[-1] for step in steps]))
    for step, text, column in zip(steps, texts.text, texts.column, strict=True):
        place = texts.starts[text] + column
        assert texts.ids[text, : place + 1].tolist() == step and place + 1 == len(step) <= texts.lengths[text]
    # A text is needed for every step that begins no other.
    whole = {tuple(s) for s in steps}
    assert len(texts.ids) == sum(not any(o[: len(s)] == s and o != s for o in whole) for s in whole)
    assert (texts.ids[np.arange(texts.ids.shape[1]) >= texts.lengths[:, None]] == 0).all()


def two_models():
    lm = tiny_gpt2(len(TOKENIZER), LONGEST + 3, width=16)
    return ActorCritic(lm, TOKENIZER, LONGEST + 3, value_lm=tiny_gpt2(len(TOKENIZER), LONGEST + 3, width=16))


def test_what_does_not_fit_is_refused():
    short = lambda: ActorCritic(tiny_gpt2(len(TOKENIZER), 9, width=16), TOKENIZER, 9)  # noqa: E731
    other = symbol_tokenizer([*"ab"])
    for make_model, message in (
        (lambda: 3, "must give an ActorCritic"),
        (two_models, "without value_lm"),
        (short, "observations hold 15 tokens but the model was made for 9"),
        (lambda: ActorCritic(tiny_gpt2(len(other), 15, width=16), other, 15), "7 actions but the model's tokenizer has 4"),
    ):
        with pytest.raises(ValueError, match=message):
            make(make_model=make_model)
    with pytest.raises(ValueError, match="not token ids"):
        make().policy(torch.zeros(5, 15))
