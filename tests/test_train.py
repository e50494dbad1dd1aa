import json
import sys
from dataclasses import replace

import pytest
import torch
from agent_kit import build_lm
from safetensors.torch import load_file
from textgym_agents import PPO, CausalLMPolicy, PPOConfig
from textgym_agents import model as model_module
from textgym_agents.run_folder import save_agent
from textgym_agents.train import Reporter, TrainConfig, build_policy, build_task, pick_device, prepare_learning, train
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from textgym import PromptTask
from textgym.credit import Uniform
from textgym.rules import Rules
from textgym.tasks.number_duel import NumberDuel

SMALL = {
    "updates": 2,
    "num_slots": 8,
    "warmup_steps": 3,
    "eval_episodes": 8,
    "device": "cpu",
    "ppo": PPOConfig(episodes_per_update=8, minibatch_episodes=4, epochs=1),
}


class Listener(Reporter):
    def __init__(self):
        self.phases, self.last = [], {}

    def phase(self, name, total):
        self.phases.append((name, total))

    def advance(self, done, figures):
        self.last = {"done": done, **figures}


def test_a_run_leaves_a_folder_that_others_can_read(tmp_path):
    listener = Listener()
    run = train(TrainConfig(out=tmp_path, **SMALL), listener)
    assert listener.phases == [("warm-up", 3), ("learning", 16)]
    assert listener.last["done"] == 16
    assert {"score", "first", "second", "well_formed", "update_seconds"} <= set(listener.last)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["task"], config["ppo"]["epochs"], config["seed"]) == ("number_duel", 1, 0)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2]
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    prompt = torch.tensor([[tokenizer.bos_token_id]])
    out = lm.generate(prompt, do_sample=False, max_new_tokens=3, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    assert isinstance(tokenizer.decode(out[0]), str)
    assert set(load_file(tmp_path / "value_head.safetensors")) == {"weight", "bias"}
    assert set(run.before) == set(run.after)
    assert len(run.examples_before) == len(run.examples_after) == 4
    assert json.loads((tmp_path / "result.json").read_text())["after"]["tokens"] == run.after["tokens"]


def test_the_same_seed_gives_the_same_run(tmp_path):
    runs = [train(TrainConfig(out=tmp_path / str(i), **SMALL)) for i in range(2)]
    assert runs[0].after["tokens"] == runs[1].after["tokens"]
    a, b = (load_file(tmp_path / str(i) / "policy" / "model.safetensors") for i in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_a_named_model_goes_the_same_way_with_its_own_tokenizer(byte_bpe, tmp_path, shape):
    """A checkpoint on disk, its vocabulary padded beyond its tokenizer's, plays the duel through the same code."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")
    lm = build_lm(shape, len(tokenizer) + 6, context=64)
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    run = train(TrainConfig(model=str(tmp_path / "lm"), out=tmp_path / "run", **SMALL))
    assert run.tokenizer.vocab_size == len(tokenizer)
    assert max(int(episode.ids.max()) for episode, _ in run.examples_after) < len(tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path / "run" / "policy")
    assert again.encode("A: 12") == tokenizer.encode("A: 12")
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "lm").state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy").state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_model_smaller_than_its_tokenizer_is_refused_before_the_first_step(byte_bpe, tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_bpe, eos_token="<|endoftext|>")
    build_lm("gpt2", len(tokenizer) - 1, context=64).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match="logits but the tokenizer has"):
        train(TrainConfig(model=str(tmp_path / "lm"), out=tmp_path / "run", **SMALL))
    assert not (tmp_path / "run").exists()


def test_reward_forms_and_task_arguments_reach_the_task():
    task = build_task(TrainConfig(rewards="scalar", streams=False, task_args={"numerals": "digits"}))
    assert task.form == "scalar"
    assert not task.keep_streams
    assert task.task.numerals == "digits"
    assert isinstance(build_task(TrainConfig()), NumberDuel)
    assert Rules(build_task(TrainConfig(assigner="uniform"))).assigner == Uniform()
    with pytest.raises(ValueError, match="give one of the two"):
        build_task(TrainConfig(assigner="uniform", rewards="scalar"))


class Quiet:
    """An agent from outside the package; it learns nothing and says so."""

    def __init__(self, policy, seed=0):
        self.policy = policy

    def learn(self, envs, budget, callback=None):
        callback({"episodes": budget})

    def save(self, folder):
        self.policy.model.save(folder)

    def load(self, folder): ...


def test_an_agent_from_outside_gets_the_same_run_folder(tmp_path):
    listener = Listener()
    ppo = PPOConfig(episodes_per_update=8)
    train(TrainConfig(agent=f"{__name__}:Quiet", out=tmp_path, **{**SMALL, "ppo": ppo}), listener)
    assert listener.last == {"done": 16, "episodes": 16}
    assert (tmp_path / "policy" / "config.json").exists()


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(ValueError, match="sees no CUDA device"):
            pick_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_collect_and_update_run_on_cuda(tmp_path):
    run = train(TrainConfig(out=tmp_path, **{**SMALL, "device": "cuda"}))
    assert run.after["tokens"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_episodes": 0},
        {"updates": 0},
        {"num_slots": 9},
        {"warmup_steps": -1},
        {"seed": -1},
        {"reward_workers": -1},
        {"warmup_batch": 0},
        {"warmup_draw": 100},
        {"warmup_draw": 0},
        {"warmup_learning_rate": float("inf")},
        {"temperature": 0.0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"dtype": "float16"},
    ],
    ids=str,
)
def test_wrong_sizes_are_refused_at_once(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        TrainConfig(**{**SMALL, **changes})


@pytest.mark.parametrize("option", [{"reward_timeout": 5.0}, {"reward_worker_kind": "process"}], ids=str)
def test_options_of_workers_are_refused_without_workers(option):
    with pytest.raises(ValueError, match="give reward_workers too"):
        TrainConfig(**option)
    TrainConfig(reward_workers=1, **option)
    with pytest.raises(ValueError, match=r"reward_timeout is 0.0; it must be above 0"):
        TrainConfig(reward_workers=1, reward_timeout=0.0)


def test_an_unknown_agent_is_refused_before_the_first_step(tmp_path):
    listener = Listener()
    with pytest.raises(ValueError, match="there is no agent 'ppoo'"):
        train(TrainConfig(agent="ppoo", out=tmp_path / "run", **SMALL), listener)
    assert listener.phases == []
    assert not (tmp_path / "run").exists()


def test_ppo_by_its_long_name_gets_its_options_too(tmp_path):
    listener = Listener()
    train(TrainConfig(agent="textgym_agents.ppo:PPO", out=tmp_path, **SMALL), listener)
    assert listener.last["update"] == 2


class NoTokenizer(NumberDuel):
    def __init__(self):
        super().__init__()


def test_a_task_that_takes_no_tokenizer_cannot_be_played_with_a_named_model(byte_bpe, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=byte_bpe, eos_token="<|endoftext|>").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NoTokenizer takes no tokenizer"):
        build_task(TrainConfig(task=f"{__name__}:NoTokenizer", model=str(tmp_path)))


def test_a_model_without_its_tokenizer_or_that_is_not_there_is_refused(byte_bpe, tmp_path):
    build_lm("gpt2", 400, context=64).save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match="has no tokenizer files"):
        train(TrainConfig(model=str(tmp_path / "lm"), out=tmp_path / "run", **SMALL))
    with pytest.raises(ValueError, match=r"cannot load .* as a model's name \(there is no such folder\)"):
        train(TrainConfig(model=str(tmp_path / "nothing"), out=tmp_path / "run", **SMALL))


def test_a_run_folder_is_never_written_twice(tmp_path):
    train(TrainConfig(out=tmp_path, **SMALL))
    with pytest.raises(ValueError, match="holds a run already"):
        train(TrainConfig(out=tmp_path, **SMALL))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="holds a run already"):  # its policy would be replaced
        train(TrainConfig(out=tmp_path, **SMALL))


def test_options_that_the_agent_does_not_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not read the options of PPO; leave out gae_lambda, or give its own"):
        train(TrainConfig(agent=Quiet, out=tmp_path, **{**SMALL, "ppo": PPOConfig(gae_lambda=0.5)}))


def test_a_device_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="allowed are auto, cpu and cuda"):
        pick_device("gpu")


def test_a_task_with_turns_is_trained_on_with_room_for_its_replies(tmp_path):
    run = train(TrainConfig(out=tmp_path / "run", **{**SMALL, "task": "guess_number", "warmup_steps": 80}))
    assert run.after["guesses"] > 1.5  # first guesses were answered, and the agent went on
    assert run.after["well_formed"] > 0.5


def test_a_task_that_cannot_reward_is_found_before_the_warm_up(tmp_path):
    class Broken(NumberDuel):
        def rewards(self, episodes):
            return [None] * len(episodes)

    listener = Listener()
    with pytest.raises(ValueError, match="reward for episode 0 is None"):
        train(TrainConfig(out=tmp_path / "run", **{**SMALL, "task": Broken()}), listener)
    assert listener.phases == []


def test_rewards_by_workers_train_the_same_policy(tmp_path):
    now, late = (train(TrainConfig(out=tmp_path / str(n), reward_workers=n, **SMALL)) for n in (0, 1))
    assert [now.after[name] for name in ("return", "tokens")] == [late.after[name] for name in ("return", "tokens")]


def test_a_separate_value_model_starts_from_the_warm_up_and_is_written(tmp_path):
    run = train(TrainConfig(out=tmp_path, value_model="separate", **SMALL))
    value = AutoModel.from_pretrained(tmp_path / "value").state_dict()
    policy = AutoModelForCausalLM.from_pretrained(run.folder / "policy").base_model.state_dict()
    assert value.keys() == policy.keys()
    assert any(not torch.equal(value[name], policy[name]) for name in value)  # each has learned its own
    config = TrainConfig(value_model="separate", device="cpu")
    built = build_policy(config, build_task(config), "cpu").model
    with torch.no_grad():
        built.lm.transformer.wte.weight.fill_(0.5)  # what a warm-up might have left
    prepare_learning(config, CausalLMPolicy(built, 1))
    assert torch.equal(built.value_lm.wte.weight, built.lm.transformer.wte.weight)


def test_adapters_learn_with_a_reference_that_needs_no_copy(tmp_path):
    ppo = PPOConfig(episodes_per_update=8, minibatch_episodes=4, epochs=1, kl_coef=0.1)
    listener = Listener()
    train(TrainConfig(out=tmp_path, lora_rank=2, lora_alpha=8, **(SMALL | {"ppo": ppo})), listener)
    assert listener.last["ref_kl"] != 0
    names = set(load_file(tmp_path / "policy" / "model.safetensors"))
    assert not any("lora" in name for name in names)
    assert json.loads((tmp_path / "config.json").read_text())["lora_rank"] == 2
    with pytest.raises(ValueError, match="give lora_rank too"):
        TrainConfig(lora_alpha=4)
    with pytest.raises(ValueError, match="lora_rank is -1"):
        TrainConfig(lora_rank=-1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lora_targets": ("c_attn", "q_prj")}, "'q_prj'"),
        ({"lora_targets": ("wte",)}, "'wte'"),
        ({"lora_alpha": 0.0}, r"lora_alpha is 0\.0"),
        ({}, "need peft"),
    ],
    ids=str,
)
def test_adapters_that_cannot_be_made_are_found_before_the_warm_up(tmp_path, monkeypatch, changes, match):
    if not changes:
        monkeypatch.setitem(sys.modules, "peft", None)
    listener = Listener()
    with pytest.raises(ValueError, match=match):
        train(TrainConfig(out=tmp_path / "run", lora_rank=2, **changes, **SMALL), listener)
    assert listener.phases == []
    assert not (tmp_path / "run").exists()


def test_a_run_in_bfloat16_writes_bfloat16(tmp_path):
    train(TrainConfig(out=tmp_path, dtype="bfloat16", **SMALL))
    weights = load_file(tmp_path / "policy" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_a_chat_model_plays_a_task_of_conversations(chat_tokenizer, tmp_path):
    build_lm("llama", len(chat_tokenizer), context=64).save_pretrained(tmp_path / "lm")
    chat_tokenizer.save_pretrained(tmp_path / "lm")
    run = train(TrainConfig(task=conversations, model=str(tmp_path / "lm"), out=tmp_path / "run", attention="eager", **SMALL))
    assert run.examples_after[0][0].prompt.text == "<s><|turn|>user: hello<|turn|>assistant: "


def conversations(tokenizer):
    prompt = [{"role": "user", "content": "hello"}]
    return PromptTask([prompt], tokenizer, lambda episodes: [float(len(e.ids) < 4) for e in episodes], max_new_tokens=6)


def test_how_tokens_are_sampled_and_carried_over_reaches_policy_and_learner(tmp_path):
    ppo = replace(SMALL["ppo"], carry_over=True, episodes_per_update=16)
    config = TrainConfig(out=tmp_path, **SMALL | {"top_k": 3, "top_p": 0.9, "temperature": 0.8, "ppo": ppo})
    policy = build_policy(config, build_task(config), "cpu")
    assert (policy.sampling.temperature, policy.sampling.top_k, policy.sampling.top_p) == (0.8, 3, 0.9)
    train(config)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["importance_weight"] < 1 for row in rows)  # the kept tokens' share of the whole distribution


class FailsLater(NumberDuel):
    """A task whose rewards raise once ``last`` episodes were rewarded."""

    def __init__(self, last, error):
        super().__init__()
        self.left, self.error = last, error

    def rewards(self, episodes):
        self.left -= len(episodes)
        if self.left < 0:
            raise self.error
        return super().rewards(episodes)


def policy_weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder / "policy").state_dict()


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("last", [4 + 8 + 8 + 4, 4 + 8 + 16 + 4], ids=["learning", "evaluating"])
def test_what_was_learned_survives_whatever_raises_F29(tmp_path, kind, last):
    """Rehearsed: 4 episodes; evaluated: 8; learned from: 16; evaluated again: 8."""
    changes = {**SMALL, "warmup_steps": 0, "task": FailsLater(last, kind("the judge is down"))}
    with pytest.raises(kind, match="the judge is down") as caught:
        train(TrainConfig(out=tmp_path, **changes))
    assert any(str(tmp_path) in note for note in caught.value.__notes__)
    config = TrainConfig(**changes)
    start = build_policy(config, NumberDuel(), "cpu").model.lm.state_dict()
    left = policy_weights(tmp_path)
    assert left.keys() == start.keys()
    assert any(not torch.equal(left[name], start[name]) for name in left)


def test_a_save_that_is_cut_off_leaves_the_policy_that_was_there_F33(tmp_path, monkeypatch):
    agent = PPO(build_policy(TrainConfig(), NumberDuel(), "cpu"))
    save_agent(agent, tmp_path)
    there = policy_weights(tmp_path)
    with torch.no_grad():
        agent.policy.model.lm.transformer.wte.weight.zero_()

    def cut_off(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_module, "save_file", cut_off)  # the last of what is written
        with pytest.raises(KeyboardInterrupt):
            save_agent(agent, tmp_path)
    assert all(torch.equal(there[name], tensor) for name, tensor in policy_weights(tmp_path).items())
    save_agent(agent, tmp_path)
    assert not policy_weights(tmp_path)["transformer.wte.weight"].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy", "value_head.safetensors"]


def test_what_a_run_writes_is_json_where_figures_are_not_finite(tmp_path):
    class Undefined(NumberDuel):
        def metrics(self, episodes):
            return {"mean_of_none": float("nan"), "largest_of_none": float("-inf")}

    def refuse(constant):
        raise AssertionError(constant)

    train(TrainConfig(out=tmp_path, **SMALL, task=Undefined()))
    rows = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    for figures in (*rows, result["before"], result["after"]):
        assert figures["mean_of_none"] is figures["largest_of_none"] is None
        assert figures["tokens"] > 0


@pytest.mark.parametrize(("name", "early"), [("tokens", True), ("entropy", False)])
def test_metrics_with_the_names_of_other_figures_are_refused(tmp_path, name, early):
    """Those of every run before the warm-up, those of the learner, whose names are not known before, at the first row."""

    class Hides(NumberDuel):
        def metrics(self, episodes):
            return {"fine": 0.0, name: 123.0}

    listener = Listener()
    with pytest.raises(ValueError, match=f"names that other figures of a run have: {name}; rename"):
        train(TrainConfig(out=tmp_path / "run", **SMALL, task=Hides()), listener)
    assert bool(listener.phases) == (tmp_path / "run").exists() == (not early)
    if not early:
        assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
