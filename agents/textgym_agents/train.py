"""A run: task, model, warm-up, agent, evaluation, run folder. What ``textgym train`` does, as a function.

Left out on purpose: learning (the agent's) and the console (``cli``'s); progress goes out through ``Reporter``.
"""

from __future__ import annotations

import copy
import inspect
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from gymnasium.vector import AutoresetMode

from textgym import Episode, Release, RewardForm, Task, TextGenVectorEnv, TextTokenizer, resolve_task
from textgym.names import check_arguments
from textgym.probes import play_random
from textgym.rules import Rules
from textgym.task import find_task
from textgym_agents.agent import find_agent, resolve_agent
from textgym_agents.agent_config import options as options_of
from textgym_agents.evaluate import judge, play
from textgym_agents.guard import Metered, check_policy, name_of
from textgym_agents.lora import add_lora, check_lora
from textgym_agents.model import ActorCritic, load_lm, load_tokenizer, tiny_gpt2
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.policy_credit import bind_policy, make_assigner
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.run_folder import Diary, RunFolder, check_resumable, kept, save_agent
from textgym_agents.train_config import JSON, TrainConfig, resumed
from textgym_agents.warmup import warm_up

__all__ = ["JSON", "Reporter", "Run", "TrainConfig", "train"]


class Reporter:
    """Hears how a run goes; ``cli`` derives the one with a progress bar."""

    def phase(self, name: str, total: int) -> None:
        """Hear that a phase of ``total`` steps begins."""

    def advance(self, done: int, figures: Mapping[str, float]) -> None:
        """Hear that ``done`` steps of the phase are done."""


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    folder: Path
    """The run folder: config.json, metrics.jsonl, policy/, value_head.safetensors."""
    before: dict[str, float]
    """Figures of the warmed-up model."""
    after: dict[str, float]
    """Figures of the trained policy."""
    seconds: float
    """Wall-clock time of the run."""
    examples_before: list[tuple[Episode, Release]]
    """A few episodes of the warmed-up model; a resumed run has them from its folder, without the prompts' metadata."""
    examples_after: list[tuple[Episode, Release]]
    """A few episodes of the trained policy."""
    tokenizer: TextTokenizer
    """The task's tokenizer."""


def train(config: TrainConfig, reporter: Reporter | None = None) -> Run:
    """Build everything that ``config`` names, learn, and write the run folder.

    What was learned is kept however the run ends: where learning or evaluating raises, by Ctrl-C too, the policy is written
    before the exception passes.

    Raises:
        ValueError: a name or a size does not fit; before the first step.
        Exception: what learning raised, with a note that names the run folder.
    """
    config = resumed(config) if config.resume else config
    reporter = reporter or Reporter()
    start = time.perf_counter()
    device = pick_device(config.device)
    process = PartialState(cpu=device == "cpu")  # several of them under `accelerate launch`; one of them writes
    # 1) task, model, agent
    task = build_task(config)
    make_agent = find_agent(config.agent)
    options = agent_options(config, make_agent)
    if config.checkpoint_every or config.resume:
        check_resumable(make_agent, process.num_processes)
    policy = build_policy(config, task, device, rank=process.process_index)
    bind_policy(task, policy)
    rehearse(task)
    if config.lora_rank:
        check_lora(policy.model, config.lora_rank, config.lora_alpha, config.lora_targets)
    folder = RunFolder.open(config, task) if process.is_main_process else None
    # 2) warm-up: the form of the task's texts, not yet its goal; a resumed run has it behind itself
    if not config.resume:
        warm_up_policy(config, task, policy, reporter)
    prepare_learning(config, policy)
    if config.resume:
        before, examples_before = RunFolder.before(config), RunFolder.examples(config)
    else:
        played = _play(config, task, policy, device)
        before, examples_before = judge(task, played), played[:4]
        if folder is not None:
            folder.write_examples(examples_before)
    agent = resolve_agent(make_agent, policy, seed=config.seed, **options)
    if config.checkpoint_every:
        check_resumable(agent, process.num_processes)
    # 3) learn
    envs = build_envs(config, task, device, group_size=getattr(agent, "group_size", 1))
    envs.reset(seed=config.seed + process.process_index * config.num_slots)
    budget = config.updates * config.ppo.episodes_per_update
    reporter.phase("learning", budget)
    metered = Metered(envs, budget, name_of(agent))
    diary = Diary(folder, task, envs, agent, before, config, reporter.advance)
    with _closed(envs), diary, kept(agent, folder, policy):
        agent.learn(metered, budget, diary)
        diary.check_learned(metered.ended)
        check_policy(agent)
        envs.close()
        # 4) leave the policy behind, and judge it
        if folder is not None:
            save_agent(agent, folder.path)
        played = _play(config, task, agent.policy, device)
        after = judge(task, played)
    seconds = time.perf_counter() - start
    if folder is not None:
        seconds += diary.seconds_before
        folder.write_result(before, after, seconds, diary.best)
    path = Path(os.devnull) if folder is None else folder.path
    return Run(path, before, after, seconds, examples_before, played[:4], policy.model.tokenizer)


def agent_options(config: TrainConfig, make_agent: Any) -> dict[str, Any]:
    """Give the arguments that the agent's constructor gets beside the policy and the seed.

    Raises:
        ValueError: an option is not the agent's, or has a value that it does not take; says what there is.
    """
    if make_agent is PPO:
        if config.agent_args:
            raise ValueError(
                f"agent_args has {', '.join(map(repr, config.agent_args))}, but PPO's options are the command's own: "
                "--epochs 2, or from Python ppo=PPOConfig(epochs=2)"
            )
        return {"config": config.ppo}
    plain = PPOConfig(episodes_per_update=config.ppo.episodes_per_update)
    given = [each.name for each in fields(plain) if getattr(config.ppo, each.name) != getattr(plain, each.name)]
    if given:
        raise ValueError(
            f"the agent is {config.agent!r}, which does not read the options of PPO; leave out {', '.join(given)}, or give its "
            """own: --agent-args '{"name": value}'"""
        )
    if not (inspect.isclass(make_agent) or inspect.isfunction(make_agent)):
        if config.agent_args:
            raise ValueError(f"the agent is a {name_of(make_agent)} that is made already, so it takes no agent_args")
        return {}
    options = options_of(make_agent, config.agent_args, {"episodes_per_update": config.ppo.episodes_per_update})
    check_arguments(make_agent, None, seed=config.seed, **options)
    episodes = getattr(options.get("config"), "episodes_per_update", options.get("episodes_per_update"))
    budget = config.updates * config.ppo.episodes_per_update
    if episodes is not None and not (isinstance(episodes, int) and 1 <= episodes <= budget):
        raise ValueError(
            f"the agent's episodes_per_update is {episodes!r}; it must be a whole number, at least 1 and at most the budget, "
            f"{budget}: --updates times --episodes-per-update"
        )
    if episodes is not None and episodes < config.num_slots:
        raise ValueError(
            f"num_slots is {config.num_slots} but the agent's episodes_per_update is {episodes}, and there may be as "
            f"many slots at most; give --num-slots {episodes} too"
        )
    _check_groups(config, getattr(options.get("config"), "group_size", 1))
    return options


def build_envs(config: TrainConfig, task: Task, device: str, group_size: int = 1) -> TextGenVectorEnv:
    """Build the environment that the agent learns in; slots of a group see the same prompts.

    Raises:
        ValueError: the slots cannot be divided into such groups.
    """
    _check_groups(config, group_size)
    late = {"reward_worker_kind": config.reward_worker_kind, "reward_timeout": config.reward_timeout}
    return TextGenVectorEnv(
        config.num_slots,
        task,
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
        device=device,
        group_size=group_size,
        keep_episodes=True,
        infos="objects",
        **({"reward_workers": config.reward_workers, **late} if config.reward_workers else {}),
    )


@contextmanager
def _closed(envs: TextGenVectorEnv) -> Iterator[None]:
    """Close an environment however the run ends: its reward workers would go on."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # after an exception, releases that are due are owed to nobody
            envs.close()


def _check_groups(config: TrainConfig, group_size: Any) -> None:
    if not isinstance(group_size, int) or group_size < 1:
        raise ValueError(f"the agent's group_size is {group_size!r}; it must be a whole number, at least 1")
    if config.num_slots % group_size:
        raise ValueError(
            f"num_slots is {config.num_slots} and the agent's group_size {group_size}; give a multiple, such as --num-slots "
            f"{max(1, config.num_slots // group_size) * group_size}"
        )


def build_task(config: TrainConfig) -> Task:
    """Build the task in the reward form that the run asks for; a named model's tokenizer goes to the task."""
    args = dict(config.task_args)
    if config.model != "tiny":
        args.setdefault("tokenizer", load_tokenizer(config.model))
        found = find_task(config.task)[0] if isinstance(config.task, str) else config.task
        if found is not None and not (callable(found) and "tokenizer" in inspect.signature(found).parameters):
            name = getattr(found, "__name__", type(found).__name__)
            raise ValueError(
                f"{name} takes no tokenizer, so it cannot be played with the model {config.model!r}, which has its own; give "
                "its constructor an argument tokenizer"
            )
    task = resolve_task(config.task, **args)
    if config.rewards == "tokens" and config.streams and config.assigner is None:
        return task
    return RewardForm(task, config.rewards, config.streams, make_assigner(config.assigner))


def rehearse(task: Task) -> None:
    """Reward and judge a few random texts, so that a task that cannot is found before the warm-up and not after it."""
    rules = Rules(task)
    played = [sampled.episode for sampled in play_random(rules, 4, seed=0)]
    try:
        judge(task, list(zip(played, rules.release(played, [0] * len(played)), strict=True)))
    except Exception as error:
        error.add_note("textgym check tells more about a task")
        raise


def build_policy(config: TrainConfig, task: Task, device: str, rank: int = 0) -> CausalLMPolicy:
    """Build the policy: the named model, or the tiny one, sized for the task; each process samples with a seed of its own."""
    tokenizer = TextTokenizer(task.tokenizer)
    context_length = task.max_prompt_tokens + (task.max_response_tokens or task.max_new_tokens)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    if config.model == "tiny":
        shape = {"layers": config.layers, "width": config.width, "heads": config.heads}
        lm = tiny_gpt2(tokenizer.vocab_size, context_length, seed=config.seed, **shape)
    else:
        lm = load_lm(config.model, dtype, None if config.attention == "auto" else config.attention)
    lm = lm.to(device, dtype)  # type: ignore[arg-type]
    value_lm = copy.deepcopy(lm) if config.value_model == "separate" else None
    model = ActorCritic(lm, tokenizer, context_length, value_lm)
    sampling = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    return CausalLMPolicy(model, config.num_slots, seed=config.seed + 7919 * rank, **sampling)


def warm_up_policy(config: TrainConfig, task: Task, policy: CausalLMPolicy, reporter: Reporter) -> None:
    """Warm the policy up where the run asks for it and the task has demonstrations."""
    if config.warmup_steps == 0 or not task.demonstrations(np.random.default_rng(0), 1):
        return
    reporter.phase("warm-up", config.warmup_steps)
    warm_up(
        policy.model,
        task,
        steps=config.warmup_steps,
        batch=config.warmup_batch,
        draw=config.warmup_draw,
        learning_rate=config.warmup_learning_rate,
        seed=config.seed,
        callback=lambda step, loss: reporter.advance(step, {"loss": loss}),
    )


def prepare_learning(config: TrainConfig, policy: CausalLMPolicy) -> None:
    """Let the value model start from the warmed-up weights, and put adapters in, where the run asks for them."""
    policy.model.start_values_from_policy()
    if config.lora_rank:
        add_lora(policy.model, config.lora_rank, config.lora_alpha, config.lora_targets, config.seed)


def pick_device(name: str) -> str:
    """Turn "auto" into "cuda" where there is one, else "cpu".

    Raises:
        ValueError: the device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; allowed are auto, cpu and cuda")
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r} but torch sees no CUDA device; use --device cpu or auto")
    return name


def _play(config: TrainConfig, task: Task, policy: Any, device: str) -> list[tuple[Episode, Release]]:
    # A seed of its own, so that evaluation never sees the training's prompts in the training's order.
    seed = config.seed + 1_000_003
    return play(task, policy, episodes=config.eval_episodes, num_slots=config.num_slots, seed=seed, device=device)
