"""Run folders survive: broken agents are told what they did wrong, runs go on after a kill, saves are whole."""

import json
import math
import re
import threading
from dataclasses import replace

import pytest
import torch
from run_kit import contents, cut_off
from safetensors.torch import load_file
from textgym_agents import PPO, PPOConfig, checkpoint, collect, model
from textgym_agents.checkpoint import newest_version
from textgym_agents.guard import AgentError
from textgym_agents.random_agent import RandomPolicy
from textgym_agents.run_folder import check_resumable, finite
from textgym_agents.train import TrainConfig, build_policy, train
from textgym_agents.train_config import resumed

from textgym.tasks.number_duel import NumberDuel

SMALL = {
    "updates": 2,
    "num_slots": 8,
    "warmup_steps": 3,
    "eval_episodes": 8,
    "device": "cpu",
    "ppo": PPOConfig(episodes_per_update=8, minibatch_episodes=4, epochs=1),
}
OTHERS = {**SMALL, "ppo": PPOConfig(episodes_per_update=8)}


class Plain:
    """An agent without a model of ours; what its tests break is in the classes below."""

    def __init__(self, policy, seed=0):
        self.policy = RandomPolicy(policy.model.vocab_size, seed)

    def learn(self, envs, budget, callback=None):
        for done in range(8, budget + 1, 8):
            collect(envs, self.policy, 8)
            callback({"episodes": done})

    def save(self, folder):
        (folder / "mine.txt").write_text("weights")

    def load(self, folder): ...


def test_a_plain_class_without_a_model_gets_the_same_run_folder(tmp_path):
    run = train(TrainConfig(agent=f"{__name__}:Plain", out=tmp_path, **OTHERS))
    assert (tmp_path / "mine.txt").read_text() == "weights"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["episodes"] for row in rows] == [8, 16]
    assert {"score", "first", "well_formed"} <= set(rows[0])  # judged though the agent told none of it
    assert json.loads((tmp_path / "result.json").read_text())["after"]["tokens"] == run.after["tokens"]


class Spoils(RandomPolicy):
    """Plays well for a while, then gives what ``change`` makes of its step."""

    def __init__(self, vocab_size, change):
        super().__init__(vocab_size)
        self.change, self.left = change, 40

    def act(self, obs, slots):
        self.left -= 1
        step = super().act(obs, slots)
        return step if self.left > 0 else self.change(step)


def nan_actions(step):
    return replace(step, tokens=step.tokens.float() * float("nan"))


class NanActions(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, nan_actions)


class NanLogprobs(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, lambda step: replace(step, logprobs=step.logprobs * float("nan")))


class WrongShape(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, lambda step: replace(step, tokens=step.tokens[:, None]))


class WrongType(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, lambda step: replace(step, tokens=step.tokens.int()))


class WrongDevice(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, lambda step: replace(step, values=step.values.to("meta")))


class OutOfRange(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, lambda step: replace(step, tokens=step.tokens + 999))


class NoStep(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, lambda step: step.tokens)


def fall(step):
    raise RuntimeError("out of memory")


class ActRaises(Plain):
    def __init__(self, policy, seed=0):
        self.policy = Spoils(policy.model.vocab_size, fall)


class StepsBadly(Plain):
    """Drives the environment itself, past our checks: the environment's own error is passed on with the agent's name."""

    def learn(self, envs, budget, callback=None):
        super().learn(envs, budget, callback)
        envs.reset()
        envs.step(torch.full((8,), 999))


class Overruns(Plain):
    def learn(self, envs, budget, callback=None):
        super().learn(envs, 10**9, callback)


class DoesNothing(Plain):
    def learn(self, envs, budget, callback=None): ...


class TellsNothing(Plain):
    def learn(self, envs, budget, callback=None):
        super().learn(envs, budget, lambda figures: callback({"loss": 1.0}) if figures["episodes"] > 8 else callback(figures))


class NoPolicy(Plain):
    def learn(self, envs, budget, callback=None):
        super().learn(envs, budget, callback)
        self.policy = None


class SaveFails(Plain):
    def __init__(self, policy, seed=0):
        super().__init__(policy, seed)
        self.calls = 0

    def save(self, folder):
        raise OSError("disk full")


class SavesNothing(Plain):
    def save(self, folder): ...


@pytest.mark.parametrize(
    ("agent", "kind", "match", "rows"),
    [
        (NanActions, AgentError, ",) and dtype torch.float32; allowed is Step(tokens int64 (", None),
        (NanLogprobs, AgentError, "they must be finite: look whether", None),
        (WrongShape, AgentError, "1) and dtype torch.int64; allowed is Step", None),
        (WrongType, AgentError, "tokens of dtype torch.int32; allowed is", None),
        (WrongDevice, AgentError, "values on meta but the observation is on cpu", None),
        (OutOfRange, AgentError, "allowed are token ids 0..", None),
        (NoStep, AgentError, "gave a Tensor whose tokens is None", None),
        (ActRaises, RuntimeError, "out of memory", None),
        (StepsBadly, ValueError, "allowed are token ids 0..", 2),
        (Overruns, AgentError, "was given a budget of 16 episodes and has played", 5),
        (DoesNothing, AgentError, "returned without playing an episode and without calling callback", 0),
        (TellsNothing, AgentError, "called callback with episodes None; tell how many", 1),
        (NoPolicy, TypeError, "is None, which lacks act and reset_slots", 2),
        (SaveFails, OSError, "disk full", 2),
        (SavesNothing, AgentError, "wrote nothing into the folder", 2),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else "",
)
def test_a_broken_agent_is_told_by_name_and_the_run_folder_survives(tmp_path, agent, kind, match, rows):
    with pytest.raises(kind, match=re.escape(match)) as caught:
        train(TrainConfig(agent=agent, out=tmp_path, **OTHERS))
    notes = caught.value.__notes__
    said = str(caught.value) + " ".join(notes)
    assert f"{__name__}:{agent.__name__}" in said  # the class that the user wrote, as the command line names it
    assert json.loads((tmp_path / "config.json").read_text())["num_slots"] == 8
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all("episodes" in json.loads(line) for line in written)
    if rows is not None:
        assert len(written) == rows
    if agent in (SaveFails, SavesNothing):  # the language model that it was given is kept in its place
        assert (tmp_path / "policy" / "model.safetensors").exists()
        assert any("the language model that the agent was given, as it stands now, is in" in note for note in notes)
    else:
        assert (tmp_path / "mine.txt").read_text() == "weights"
        assert any("the policy, as far as it had learned, is in" in note for note in notes)
    assert not (tmp_path / "unfinished").exists()


def test_a_class_that_lacks_a_method_is_told_before_it_learns(tmp_path):
    class NoLoad(Plain):
        load = None

    with pytest.raises(TypeError, match=r"NoLoad is not an agent: it lacks load\(\); an agent has policy"):
        train(TrainConfig(agent=NoLoad, out=tmp_path, **OTHERS))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"agent": "rloo", "agent_args": {"group_sise": 4}}, "RLOO has no option 'group_sise'. Did you mean 'group_size'"),
        ({"agent": "rloo", "agent_args": {"group_size": 1}}, "group_size is 1; it must be at least 2"),
        ({"agent": "rloo", "agent_args": {"group_size": 2.5}}, "'group_size' of RLOO is 2.5; it must be int"),
        (
            {"agent": "rloo", "agent_args": {"episodes_per_update": 18}},
            "is 18; it must be a whole number, at least 1 and at most the budget, 16",
        ),
        (
            {"agent": "rloo", "agent_args": {"episodes_per_update": 4}},
            "num_slots is 8 but the agent's episodes_per_update is 4, and there may be as many slots at most",
        ),
        ({"agent": "random", "agent_args": {"episodes_per_update": 0}}, "is 0; it must be a whole number, at least 1"),
        ({"agent": Plain, "agent_args": {"sed": 4}}, "Plain: got an unexpected keyword argument 'sed'. Did you mean 'seed'"),
        (
            {"ppo": PPOConfig(episodes_per_update=8), "agent_args": {"epochs": 2}},
            "PPO's options are the command's own: --epochs",
        ),
    ],
    ids=str,
)
def test_options_of_an_agent_are_checked_before_the_warm_up(tmp_path, changes, match):
    with pytest.raises(ValueError, match=re.escape(match)):
        train(TrainConfig(out=tmp_path / "run", **{**OTHERS, **changes}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [0, 2.5, None])
def test_a_group_size_that_is_none_is_refused(tmp_path, size):
    class Odd(Plain):
        group_size = size

    with pytest.raises(ValueError, match=f"the agent's group_size is {size!r}; it must be a whole number, at least 1"):
        train(TrainConfig(agent=Odd, out=tmp_path, **OTHERS))


def test_reward_workers_stop_however_a_run_ends(tmp_path):
    running = {thread for thread in threading.enumerate() if thread.name == "textgym-reward"}
    with pytest.raises(RuntimeError, match="out of memory"):
        train(TrainConfig(agent=ActRaises, reward_workers=2, out=tmp_path, **OTHERS))
    left = {thread for thread in threading.enumerate() if thread.name == "textgym-reward"} - running
    for thread in left:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in left)


def test_slots_that_cannot_be_grouped_are_refused_with_the_next_step(tmp_path):
    with pytest.raises(ValueError, match=r"num_slots is 8 and the agent's group_size 3; .* --num-slots 6"):
        train(TrainConfig(agent="rloo", agent_args={"group_size": 3, "episodes_per_update": 9}, out=tmp_path / "run", **OTHERS))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("agent", ["reinforce", "rloo", "grpo", "best_of_n", "cloning", "ilql", "random"])
def test_every_shipped_agent_goes_through_the_same_command(tmp_path, agent):
    run = train(TrainConfig(agent=agent, out=tmp_path, **OTHERS))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["episodes"] for row in rows] == [8, 16]  # episodes_per_update follows the run's
    assert run.after["tokens"] > 0
    assert (tmp_path / "random_agent.json").exists() == (agent == "random")
    assert (tmp_path / "policy").exists() == (agent != "random")


PPO_STATE = PPOConfig(
    episodes_per_update=8, minibatch_episodes=4, epochs=2, kl_coef=0.1, kl_target=0.01, kl_horizon=20.0, scale_rewards=True
)


@pytest.mark.parametrize("agent", ["ppo", "reinforce", "rloo", "best_of_n", "cloning"])
def test_a_resumed_run_ends_bit_identical_with_an_uninterrupted_one_F32(tmp_path, monkeypatch, agent):
    """Optimizer, generators, KL coefficient, running scale, reference, best score, learning rate: each would show.

    Prompts of the random walks are drawn, so that the environment's generators would show too.
    """
    changes = {"agent": agent, "updates": 5, "checkpoint_every": 2, "ppo": PPO_STATE if agent == "ppo" else OTHERS["ppo"]}
    if agent == "reinforce":
        changes |= {"task": "random_walks", "layers": 1}
    config = TrainConfig(**{**SMALL, **changes})
    began = train(replace(config, out=tmp_path / "whole"))
    cut_off(replace(config, out=tmp_path / "cut"), monkeypatch, after=3)
    assert not (tmp_path / "cut" / "result.json").exists()
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 3  # one of them after the checkpoint
    run = train(TrainConfig(resume=tmp_path / "cut"))
    shown = [[(e.prompt.text, e.text, r.token_rewards.tolist()) for e, r in each.examples_before] for each in (began, run)]
    assert len(shown[0]) == 4 and shown[0] == shown[1]  # the table shows what was written before the first part of the run
    (whole, rows, result), (cut, rows_cut, result_cut) = (contents(tmp_path / name) for name in ("whole", "cut"))
    assert rows == rows_cut
    assert result == result_cut
    for name in whole:
        assert all(torch.equal(tensor, cut[name][key]) for key, tensor in whole[name].items()), name


def test_a_separate_value_model_and_adapters_are_resumed_too(tmp_path, monkeypatch):
    changes = {"updates": 3, "checkpoint_every": 1, "value_model": "separate", "lora_rank": 2, "ppo": PPO_STATE}
    config = TrainConfig(**{**SMALL, **changes})
    train(replace(config, out=tmp_path / "whole"))
    cut_off(replace(config, out=tmp_path / "cut"), monkeypatch, after=1)
    train(TrainConfig(resume=tmp_path / "cut"))
    (whole, rows, _), (cut, rows_cut, _) = (contents(tmp_path / name) for name in ("whole", "cut"))
    assert rows == rows_cut
    assert all(
        torch.equal(tensor, cut["policy/model.safetensors"][key]) for key, tensor in whole["policy/model.safetensors"].items()
    )


def test_a_kill_in_the_middle_of_a_checkpoint_leaves_the_one_before_F33(tmp_path, monkeypatch):
    config = TrainConfig(out=tmp_path, **{**SMALL, "updates": 3, "checkpoint_every": 1})
    real, calls = checkpoint.save_file, []

    def killed(tensors, path):
        calls.append(path)
        if len(calls) == 4:  # each checkpoint writes two of them: this is in the middle of the second
            raise KeyboardInterrupt
        real(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    at = newest_version(tmp_path / "checkpoints")
    assert at is not None and at.name == "00000001"
    train(TrainConfig(resume=tmp_path))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000003"]


def test_what_cannot_be_resumed_is_said_so_plainly(tmp_path):
    with pytest.raises(ValueError, match=r"Plain has no save_state and no load_state, so its runs cannot be resumed: leave"):
        train(TrainConfig(agent=Plain, checkpoint_every=1, out=tmp_path / "a", **OTHERS))
    with pytest.raises(ValueError, match="has no save_state and no load_state"):  # a function hides its agent till it is made
        train(TrainConfig(agent=lambda policy, seed: Plain(policy), checkpoint_every=1, out=tmp_path / "b", **OTHERS))
    with pytest.raises(ValueError, match="ILQL has no save_state"):
        train(TrainConfig(agent="ilql", checkpoint_every=1, out=tmp_path / "c", **OTHERS))
    assert not (tmp_path / "a").exists()
    train(TrainConfig(out=tmp_path / "d", **SMALL))
    with pytest.raises(ValueError, match=r"holds no checkpoint to resume from; .* --checkpoint-every N"):
        train(TrainConfig(resume=tmp_path / "d"))
    with pytest.raises(ValueError, match="there are 2 processes, and a checkpoint holds the state of one"):
        check_resumable(PPO, 2)


def test_a_save_of_ppo_that_is_cut_off_leaves_the_policy_that_was_there_F33(tmp_path, monkeypatch):
    agent = PPO(build_policy(TrainConfig(), NumberDuel(), "cpu"))
    agent.save(tmp_path)
    before = load_file(tmp_path / "policy" / "model.safetensors")
    with torch.no_grad():
        agent.policy.model.lm.transformer.wte.weight.zero_()

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "save_file", killed)  # the last of what is written
        with pytest.raises(KeyboardInterrupt):
            agent.save(tmp_path)
    after = load_file(tmp_path / "policy" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy", "value_head.safetensors"]


def test_the_best_score_is_kept_with_its_place(tmp_path):
    train(TrainConfig(out=tmp_path, **SMALL))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((tmp_path / "result.json").read_text())["best"]
    first = next(row for row in rows if row["score"] == max(row["score"] for row in rows))
    assert best == {"score": first["score"], "episodes": first["episodes"]}


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    scores = iter([0.0, 0.0, 0.5, math.nan, 0.0])  # of the rehearsal, before learning, of two rows, after it
    task = NumberDuel()
    task.score = lambda episodes: next(scores)  # type: ignore[method-assign]
    train(TrainConfig(task=task, out=tmp_path, **SMALL))
    assert json.loads((tmp_path / "result.json").read_text())["best"] == {"score": 0.5, "episodes": 8}


def test_figures_that_json_has_no_word_for_are_null():
    assert finite({"a": math.nan, "b": 1, "c": -math.inf, "d": 0.5}) == {"a": None, "b": 1, "c": None, "d": 0.5}


def test_a_resumed_run_knows_its_folder(tmp_path):
    train(TrainConfig(out=tmp_path, checkpoint_every=1, **SMALL))
    assert resumed(TrainConfig(resume=tmp_path)).out == tmp_path
