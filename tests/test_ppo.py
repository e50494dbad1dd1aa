import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from agent_kit import CONTEXT, build_lm
from gymnasium.vector import AutoresetMode
from safetensors.torch import load_file
from textgym_agents import PPO, ActorCritic, CausalLMPolicy, PPOConfig, collect, tiny_gpt2, warm_up
from textgym_agents import head as head_module
from textgym_agents import ppo as ppo_module
from textgym_agents.constant_total import ConstantTotalWarning
from textgym_agents.evaluate import judge, play
from textgym_agents.figures import accounts
from textgym_agents.returns import stream_gae
from textgym_agents.rollout import Rollout

import textgym
from textgym import PromptTask, Task
from textgym.credit import KeepLast, NonCausalCreditWarning, Uniform, UnpaidStreamsWarning

SMALL = {"episodes_per_update": 8, "minibatch_episodes": 4, "epochs": 2}


def prepare(letters, reward_fn=lambda e: [float(len(x.ids)) for x in e], seed=0, config=None, **kwargs):
    task = PromptTask(["a", "bcd"], letters, reward_fn, **{"max_new_tokens": 8, **kwargs})
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 4, seed=seed)
    envs = textgym.TextGenVectorEnv(4, task, autoreset_mode=AutoresetMode.DISABLED, output="torch", keep_episodes=True)
    envs.reset(seed=seed)
    return PPO(policy, PPOConfig(**{**SMALL, **(config or {})}), seed=seed), envs


def weights(agent):
    return torch.cat([p.detach().flatten().clone() for p in agent.policy.model.parameters()])


def test_an_update_moves_the_policy_and_reports_its_figures(letters):
    agent, envs = prepare(letters)
    before, seen = weights(agent), []
    agent.learn(envs, 16, seen.append)
    assert not torch.equal(before, weights(agent))
    assert [figures["update"] for figures in seen] == [1, 2]
    assert [figures["episodes"] for figures in seen] == [8, 16]
    assert all(math.isfinite(value) for figures in seen for key, value in figures.items() if key != "explained_variance")


def test_the_first_minibatch_starts_at_ratio_1(letters):
    agent, envs = prepare(letters, config={"epochs": 1, "minibatch_episodes": 8})
    figures = agent.update(envs)
    assert figures["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert figures["clip_fraction"] == 0


def test_the_same_seed_gives_the_same_weights(letters):
    out = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        np.random.seed(noise)  # noqa: NPY002
        agent, envs = prepare(letters, seed=3)
        agent.learn(envs, 16)
        out.append(weights(agent))
    assert torch.equal(*out)


def test_a_constant_mass_gives_finite_updates_F10(letters):
    agent, envs = prepare(letters, lambda e: [[0.3, *[0.0] * (len(x.ids) - 2), 0.7] if len(x.ids) > 1 else [1.0] for x in e])
    agent.learn(envs, 24)
    assert torch.isfinite(weights(agent)).all()


def test_a_collection_of_one_episode_and_one_token_gives_finite_updates_F11(letters):
    task = PromptTask(["a"], letters, lambda e: [1.0] * len(e), max_new_tokens=1)
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 1)
    envs = textgym.TextGenVectorEnv(1, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    PPO(policy, PPOConfig(episodes_per_update=1, minibatch_episodes=1)).learn(envs, 3)
    assert all(torch.isfinite(p).all() for p in policy.model.parameters())


def test_end_of_text_is_learned_like_any_other_action_F03(letters):
    """Short texts pay; the only way to shorten a text is the end-of-text action, whose id is also the padding's elsewhere."""
    agent, envs = prepare(
        letters,
        lambda e: [-float(len(x.ids)) for x in e],
        config={"episodes_per_update": 64, "minibatch_episodes": 32, "learning_rate": 3e-3},
    )
    lengths = []
    agent.learn(envs, 64 * 12, lambda figures: lengths.append(figures["tokens"]))
    assert lengths[0] > 4
    assert lengths[-1] < 1.5


def test_the_penalty_for_leaving_the_reference_keeps_the_policy_near_it(letters):
    distance = {}
    for kl_coef in (0.001, 5.0):
        agent, envs = prepare(
            letters,
            lambda e: [float(x.text.count("a")) for x in e],
            config={"kl_coef": kl_coef, "episodes_per_update": 32, "learning_rate": 3e-3, "whiten_advantages": False},
        )
        reference = weights(agent)
        seen = []
        agent.learn(envs, 32 * 10, seen.append)
        assert torch.equal(reference, torch.cat([p.flatten() for p in agent.reference.parameters()]))  # it stays frozen
        assert seen[0]["ref_kl"] == pytest.approx(0, abs=1e-5)
        texts = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9]])
        with torch.no_grad():
            now, then = (lm(texts).logits.log_softmax(-1) for lm in (agent.policy.model.lm, agent.reference.lm))
        distance[kl_coef] = float((now.exp() * (now - then)).sum(-1).mean())
    assert distance[5.0] < distance[0.001] / 2


def test_target_kl_stops_an_update_early(letters):
    steps = []
    for target in (None, 1e-9):
        agent, envs = prepare(letters, config={"target_kl": target, "epochs": 10, "learning_rate": 1e-2})
        count = []
        original = agent._step
        agent._step = lambda *args, run=original, log=count: log.append(1) or run(*args)
        agent.update(envs)
        steps.append(len(count))
    assert steps[0] == 20
    assert steps[1] < 20


def test_what_is_not_finite_is_named_before_any_weight_moves_F15(letters):
    agent, envs = prepare(letters)
    with torch.no_grad():
        agent.policy.model.value_head.bias.fill_(float("nan"))
    before = weights(agent)
    with pytest.raises(ValueError, match="values of row 0 of the collection are not finite"):
        agent.update(envs)
    assert torch.equal(before, weights(agent)) or bool(torch.isnan(before).any())
    agent, envs = prepare(letters)
    original = agent.policy.model.forward
    agent.policy.model.forward = lambda *args: tuple(x * float("inf") for x in original(*args))
    before = weights(agent)
    with pytest.raises(FloatingPointError, match=r"the loss is .* on episodes \["):
        agent.update(envs)
    assert torch.equal(before, weights(agent))


def test_streams_that_are_not_causal_warn_below_lambda_1(letters):
    agent, envs = prepare(letters, causal_streams=False, config={"gae_lambda": 0.9})
    with pytest.warns(UserWarning, match="streams are not causal"):
        agent.learn(envs, 8)


def test_a_budget_below_one_update_is_refused(letters):
    agent, envs = prepare(letters)
    with pytest.raises(ValueError, match="less than one update of 8"):
        agent.learn(envs, 7)


def test_saved_agents_load(letters, tmp_path):
    agent, envs = prepare(letters)
    agent.learn(envs, 8)
    agent.save(tmp_path)
    other, _ = prepare(letters, seed=9)
    other.load(tmp_path)
    assert torch.allclose(weights(agent), weights(other))


class AsymmetricDuel(Task):
    """From outside the package: one digit each, the larger wins for A, the smaller wins for B."""

    max_prompt_tokens, max_new_tokens = 1, 4

    def __init__(self):
        self.tokenizer = textgym.symbol_tokenizer([*"0123456789", *"abcdefghij"])

    def sample(self, rng):
        return textgym.Prompt("")

    def numbers(self, text):
        fits = len(text) == 2 and text[0] in "0123456789" and text[1] in "abcdefghij"
        return (int(text[0]), "abcdefghij".index(text[1])) if fits else None

    def rewards(self, episodes):
        out = []
        for episode in episodes:
            said = self.numbers(episode.text)
            if said is None:
                out.append(-2.0)
                continue
            first_larger = float(np.sign(said[0] - said[1]))
            # A wins with the larger number, B with the smaller.
            out.append([textgym.Span(0, 1, first_larger), textgym.Span(1, 2, first_larger)])
        return out

    def streams(self, episodes):
        return [np.minimum(np.arange(len(e.ids)), 1) for e in episodes]

    def metrics(self, episodes):
        said = [n for n in (self.numbers(e.text) for e in episodes) if n]
        first, second = np.mean(said, axis=0) if said else (float("nan"),) * 2
        return {"first": first, "second": second, "well_formed": len(said) / len(episodes)}

    def demonstrations(self, rng, count):
        pairs = rng.integers(10, size=(count, 2))
        return [(textgym.Prompt(""), f"{a}{'abcdefghij'[b]}") for a, b in pairs]


def test_the_agent_learns_a_task_object_from_outside_the_package():
    task = AsymmetricDuel()
    model = ActorCritic(tiny_gpt2(len(task.tokenizer), 5), task.tokenizer, 5)
    warm_up(model, task, steps=120)
    policy = CausalLMPolicy(model, 128)
    envs = textgym.TextGenVectorEnv(128, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    PPO(policy, PPOConfig(episodes_per_update=128, learning_rate=1e-3)).learn(envs, 128 * 25)
    figures = judge(task, play(task, policy, episodes=256, num_slots=128, seed=1, device="cpu"))
    assert figures["well_formed"] > 0.9
    assert figures["first"] > 6.5
    assert figures["second"] < 1.5


def test_one_stream_hides_the_first_speakers_part_from_the_gradient_and_streams_show_it_F07():
    """Exact on a real collection of the duel: A's tokens see A's own reward with streams, and always 0 without."""
    duel = textgym.resolve_task("number_duel")
    model = ActorCritic(tiny_gpt2(len(duel.tokenizer), 17), duel.tokenizer, 17)
    warm_up(model, duel, steps=150)
    envs = textgym.TextGenVectorEnv(64, duel, autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    rollout = collect(envs, CausalLMPolicy(model, 64), 64)
    good = rollout.is_success
    assert good.float().mean() > 0.5

    def reward_to_go(streams: bool, rollout: Rollout = rollout) -> torch.Tensor:
        return stream_gae(
            rollout.token_rewards,
            torch.zeros_like(rollout.values),
            rollout.streams if streams else torch.zeros_like(rollout.streams),
            rollout.agent_mask,
            rollout.final_values,
            rollout.truncated,
        )[0][good]

    own = rollout.token_rewards[good, 4]
    assert torch.equal(reward_to_go(True)[:, 0], own)
    assert own.abs().mean() > 0.9
    assert not reward_to_go(False)[:, 0].any()


def test_the_ledger_of_an_update_adds_up_with_weights_and_the_price_of_the_reference(letters):
    def judge(episodes):
        return [{"n": float(len(episode.ids)), "one": 1.0} for episode in episodes]

    agent, envs = prepare(letters, judge, config={"kl_coef": 0.5, "learning_rate": 3e-3}, weights={"n": 0.25})
    seen = []
    agent.learn(envs, 32, seen.append)
    last = seen[-1]
    assert abs(last["ledger/kl"]) > 1e-3  # the policy has left the reference
    assert last["ledger/weight/n"] == pytest.approx(0.75 * (last["ledger_asked"] - 1))
    taken = sum(amount for name, amount in last.items() if name.startswith("ledger/"))
    assert last["ledger_asked"] - taken == pytest.approx(last["ledger_learned"], abs=1e-5)
    assert last["return"] - last["ledger/kl"] == pytest.approx(last["ledger_learned"], abs=1e-5)


def test_a_reward_that_changes_on_its_way_without_an_entry_is_refused(letters):
    agent, envs = prepare(letters)
    rollout = collect(envs, agent.policy, 8)
    with pytest.raises(ValueError, match="ledger of the collection does not add up"):
        accounts(rollout.ledger, rollout, rollout.token_rewards * 0.5)


def test_layouts_and_passes_of_any_size_learn_the_same(letters):
    """Three updates with the entropy bonus and a reference, from the same seed: the same curve but for rounding."""
    curves, ends = [], []
    for changes in (
        {"packing": "padded"},
        {"packing": "packed"},
        {"packing": "sorted"},
        {"microbatch_tokens": 1},
        {"microbatch_tokens": 20, "gradient_checkpointing": True},
    ):
        options = {"entropy_coef": 0.01, "kl_coef": 0.1, "value_coef": 0.5, "learning_rate": 3e-3, **changes}
        agent, envs = prepare(letters, seed=5, config=options)
        assert agent.passes.how == changes.get("packing", "packed")
        seen = []
        agent.learn(envs, 24, seen.append)
        curves.append(seen)
        ends.append(weights(agent))
    for curve, end in zip(curves[1:], ends[1:], strict=True):
        for expected, got in zip(curves[0], curve, strict=True):
            for name in set(expected) - {"collect_seconds", "update_seconds"}:
                assert got[name] == pytest.approx(expected[name], abs=1e-4, rel=1e-3, nan_ok=True), name
        assert torch.allclose(ends[0], end, atol=1e-4)


def test_the_head_in_chunks_learns_the_same(letters, monkeypatch):
    ends = []
    for elements in (2**22, 3 * len(letters)):
        monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", elements)
        agent, envs = prepare(letters, seed=6, config={"entropy_coef": 0.01})
        agent.learn(envs, 16)
        ends.append(weights(agent))
    assert torch.allclose(*ends, atol=1e-5)


def test_a_model_that_cannot_be_packed_is_sorted(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    hidden = model.policy_hidden
    model.policy_hidden = lambda ids, positions, mask=None, cache=None: hidden(
        ids, torch.arange(ids.shape[1])[None], mask, cache
    )
    assert PPO(CausalLMPolicy(model, 4)).passes.how == "sorted"


def test_a_loss_that_is_not_finite_in_a_later_pass_moves_no_weight_F15(letters):
    agent, envs = prepare(letters, config={"microbatch_tokens": 1})
    original, calls = agent.policy.model.forward, []

    def forward(*args):
        calls.append(args)
        return tuple(x * (float("nan") if len(calls) == 3 else 1) for x in original(*args))

    agent.policy.model.forward = forward
    before = weights(agent)
    with pytest.raises(FloatingPointError, match=r"the loss is nan \(policy_loss nan, .* on episodes \[\d+\]; no weight"):
        agent.update(envs)
    assert len(calls) == 3
    assert torch.equal(before, weights(agent))


def test_one_optimizer_step_per_minibatch_whatever_the_passes(letters, monkeypatch):
    agent, envs = prepare(letters, config={"microbatch_tokens": 1})
    steps, step = [], agent.optimizer.optimizer.step
    monkeypatch.setattr(agent.optimizer.optimizer, "step", lambda *args: steps.append(1) or step(*args))
    agent.update(envs)
    assert len(steps) == 4  # two epochs of two minibatches


def test_tokens_of_an_older_policy_are_weighted_and_the_clip_is_laid_around_the_current_one(letters, monkeypatch):
    """The sampled log-probs are falsified by log 4 on one token and log 1/2 on another, as if an older policy had sampled."""
    agent, envs = prepare(letters, config={"epochs": 1, "minibatch_episodes": 8, "importance_cap": 3.0})
    rollout = collect(envs, agent.policy, 8)
    logprobs, versions = rollout.logprobs.clone(), torch.full_like(rollout.policy_version, 7)
    logprobs[0, 0] -= math.log(4)
    logprobs[1, 0] -= math.log(0.5)
    versions[0, 0] = versions[1, 0] = 5
    stale = replace(rollout, logprobs=logprobs, values=rollout.values + 1, policy_version=versions, version=7)
    evaluated, cut = agent._as_evaluated(stale)
    assert torch.allclose(evaluated.logprobs, rollout.logprobs, atol=1e-5)
    assert torch.allclose(evaluated.values, rollout.values, atol=1e-5)
    expected = torch.ones_like(cut)
    expected[0, 0], expected[1, 0] = 3.0, 0.5  # 4 is cut at the cap
    assert torch.allclose(cut, expected, atol=1e-4)
    assert agent._as_evaluated(rollout) == (rollout, None)
    monkeypatch.setattr(ppo_module.Collector, "collect", lambda *args: stale)
    figures = agent.update(envs)
    tokens = int(rollout.agent_mask.sum())
    assert figures["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert figures["staleness"] == pytest.approx(4 / tokens)
    assert figures["importance_weight"] == pytest.approx((tokens + 1.5) / tokens, abs=1e-4)


def test_bf16_learns_and_starts_near_ratio_1(letters):
    agent, envs = prepare(letters, config={"precision": "bf16", "epochs": 1, "minibatch_episodes": 8})
    before = weights(agent)
    figures = agent.update(envs)
    assert figures["approx_kl"] == pytest.approx(0, abs=1e-5)
    assert "importance_weight" in figures  # sampling was in float32
    assert weights(agent).dtype is torch.float32
    assert not torch.equal(before, weights(agent))


def test_the_kl_can_be_a_loss_with_a_weight_that_adapts(letters):
    options = {"kl_coef": 2.0, "kl_in": "loss", "kl_estimator": "k2", "kl_target": 1e-3, "kl_horizon": 80.0}
    agent, envs = prepare(letters, config={**options, "learning_rate": 1e-2})
    seen = []
    agent.learn(envs, 24, seen.append)
    assert "ledger/kl" not in seen[0]
    assert seen[-1]["kl_loss"] > 0
    # the reference is not left yet: 20 % too little, for 8 episodes of a horizon of 80
    assert [f["kl_coef"] for f in seen[:2]] == [2.0, pytest.approx(2.0 * (1 - 0.2 * 8 / 80))]
    assert seen[1]["ref_kl"] > 1.2e-3  # and then it is
    assert seen[2]["kl_coef"] == pytest.approx(seen[1]["kl_coef"] * (1 + 0.2 * 8 / 80))
    assert agent.kl_coef != seen[2]["kl_coef"]


def test_scaled_rewards_are_booked(letters):
    agent, envs = prepare(letters, lambda e: [[100.0] * len(x.ids) for x in e], config={"scale_rewards": True})
    figures = agent.update(envs)
    assert figures["ledger_learned"] == pytest.approx(figures["return"] / agent.reward_scale.rms)
    assert figures["ledger/scale"] == pytest.approx(figures["return"] - figures["ledger_learned"])
    assert agent.reward_scale.count == 8


def test_unfinished_episodes_are_carried_over_and_weighted(letters):
    agent, envs = prepare(letters, config={"carry_over": True, "max_staleness": 2, "learning_rate": 3e-3})
    seen = []
    agent.learn(envs, 48, seen.append)
    assert seen[0]["staleness"] == 0
    assert any(figures["staleness"] > 0 for figures in seen)
    assert all("importance_weight" in figures for figures in seen if figures["staleness"] > 0)
    assert all(math.isfinite(figures["policy_loss"]) for figures in seen)


def test_the_figure_episodes_counts_what_was_learned_from(letters, monkeypatch):
    agent, envs = prepare(letters, config={"carry_over": True})
    collected, collect_one = [], ppo_module.Collector.collect
    monkeypatch.setattr(ppo_module.Collector, "collect", lambda *args: collected.append(collect_one(*args)) or collected[-1])
    seen = []
    agent.learn(envs, 80, seen.append)
    assert len(seen) == 10
    assert any(len(rollout) != 8 for rollout in collected)
    assert [figures["episodes"] for figures in seen] == np.cumsum([len(rollout) for rollout in collected]).tolist()


def test_tokens_sampled_from_top_k_are_learned_as_those_of_the_whole_distribution(letters):
    agent, envs = prepare(letters, config={"epochs": 1, "minibatch_episodes": 8})
    agent.policy = CausalLMPolicy(agent.policy.model, 4, top_k=3)
    figures = agent.update(envs)
    assert figures["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert 0 < figures["importance_weight"] < 1  # each was sampled with a higher probability than the whole one gives it


@pytest.mark.parametrize("separate", [True, False])
def test_the_value_loss_shrinks_the_policys_step_only_where_both_share_a_trunk(letters, separate):
    """One step of plain gradient descent, with the value loss weighted 1 and 1000 times: is the language model's the same?"""
    steps = []
    for value_coef in (1.0, 1000.0):
        value_lm = build_lm("gpt2", len(letters), seed=1) if separate else None
        policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT, value_lm), 4)
        config = PPOConfig(**SMALL | {"epochs": 1, "minibatch_episodes": 8, "value_coef": value_coef, "max_grad_norm": 0.01})
        agent, envs = PPO(policy, config), prepare(letters)[1]
        agent.optimizer = agent.accelerator.prepare(torch.optim.SGD(policy.model.parameters(), lr=1.0))
        before = [p.detach().clone() for p in policy.model.lm.parameters()]
        head = policy.model.value_head.weight.detach().clone()
        agent.update(envs)
        moved = [p.detach() - then for p, then in zip(policy.model.lm.parameters(), before, strict=True)]
        assert not torch.equal(policy.model.value_head.weight, head)
        steps.append(float(sum(step.square().sum() for step in moved) ** 0.5))
    assert steps[0] > 1e-3
    assert (steps[1] == pytest.approx(steps[0], rel=1e-3)) is separate


def test_accelerates_environment_changes_nothing_that_is_learned(letters, monkeypatch):
    ends = []
    for environment in ({}, {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16"}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        AcceleratorState._reset_state()  # else it stays as it was made first
        agent, envs = prepare(letters)
        assert agent.accelerator.gradient_accumulation_steps == 1
        assert agent.accelerator.mixed_precision == "no"
        agent.update(envs)
        ends.append(weights(agent))
    assert torch.equal(*ends)


def test_the_horizon_of_the_kl_is_held_against_the_episodes_of_all_processes(letters, monkeypatch):
    options = {"kl_coef": 0.1, "kl_target": 6.0, "kl_horizon": 3.0}
    prepare(letters, config=options)  # 8 episodes: above 1.6
    monkeypatch.setattr(ppo_module.Accelerator, "num_processes", 2)
    with pytest.raises(
        ValueError, match=r"kl_horizon is 3\.0; it must be above a fifth of the 16 episodes that the 2 processes"
    ):
        prepare(letters, config=options)


def test_two_processes_take_the_step_that_one_takes_on_all_their_episodes_F31(tmp_path):
    """Uneven shares of tokens, and passes of which one process takes several and the other one; neither waits for the other."""
    script = str(Path(__file__).with_name("two_processes.py"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for command, name in (([sys.executable], "one"), (launch, "two")):
        done = subprocess.run([*command, script, str(tmp_path / name)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    for name, gradient in one.items():
        assert gradient.abs().max() > 1e-2
        assert torch.allclose(gradient, two[name], atol=1e-4 * float(gradient.abs().max())), name


def test_a_share_that_reward_to_go_can_erase_is_warned_about_unless_whole_streams_are_learned_F08(letters):
    agent, envs = prepare(letters, assigner="uniform")
    with pytest.warns(NonCausalCreditWarning, match="whole_stream"):
        agent.learn(envs, 8)
    for config, assigner in (({"credit": "whole_stream"}, Uniform()), ({}, KeepLast(Uniform())), ({}, "prefix_difference")):
        agent, envs = prepare(letters, config=config, assigner=assigner)
        before = weights(agent)
        agent.learn(envs, 8)  # a warning would be an error here
        assert not torch.equal(before, weights(agent))


def test_a_share_on_the_last_token_does_not_repair_several_streams_F08(letters):
    halves = {"streams_fn": lambda e: [(np.arange(len(x.ids)) >= 2).astype(int) for x in e]}
    agent, envs = prepare(letters, assigner=KeepLast(Uniform()), **halves)
    with pytest.warns(NonCausalCreditWarning, match="only that token's own stream sees the 0.5"):
        agent.learn(envs, 8)
    agent, envs = prepare(letters, assigner="last", **halves)
    with pytest.warns(UnpaidStreamsWarning, match="all but that token's stream earn nothing"):
        agent.learn(envs, 8)


def test_a_constant_total_in_one_stream_is_warned_about_F07(letters):
    def share(episode):
        first = float(episode.ids[0] % 3) + 0.5
        return [first, *[0.0] * (len(episode.ids) - 2), -first]

    agent, envs = prepare(letters, lambda e: [share(x) if len(x.ids) > 1 else 0.0 for x in e])
    with pytest.warns(ConstantTotalWarning, match="Choose streams"):
        agent.update(envs)
    agent.update(envs)  # said once: later it may be that a task is solved; a warning would be an error here
