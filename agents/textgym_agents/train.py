"""A run: task, model, warm-up, agent, evaluation, run folder. What ``textgym train`` does, as a function.

Left out on purpose: learning (the agent's) and the console (``cli``'s); progress goes out through ``Reporter``.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from accelerate import PartialState
from gymnasium.vector import AutoresetMode

from textgym import Episode, Release, RewardForm, Task, TextGenVectorEnv, TextTokenizer, resolve_task
from textgym.probes import play_random
from textgym.rules import Rules
from textgym.task import find_task
from textgym_agents.agent import Agent, find_agent, resolve_agent
from textgym_agents.evaluate import JUDGED, judge, play, refuse_clash
from textgym_agents.lora import add_lora, check_lora
from textgym_agents.model import ActorCritic, load_lm, load_tokenizer, tiny_gpt2
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.warmup import warm_up

JSON = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda args: json.loads(args[0]),
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda value: [json.dumps(value)],
)


@dataclass(frozen=True)
class TrainConfig:
    """A run; every field is an option of ``textgym train``."""

    task: Any = "number_duel"
    """Environment id, short name, "module:Name", or (from Python) a task object."""
    task_args: Annotated[dict[str, Any], JSON] = field(default_factory=dict)
    """Arguments of the task's constructor, as a JSON object."""
    agent: Any = "ppo"
    """Short name, "module:Name", entry point of the group textgym.agents, or (from Python) an agent class."""
    model: str = "tiny"
    """"tiny" builds a GPT-2 shape from its config; else a folder or name of a causal language model."""
    layers: int = 2
    """Layers of the tiny model; a named one has its own."""
    width: int = 64
    """Width of the tiny model."""
    heads: int = 4
    """Attention heads of the tiny model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights, and of all that is computed with them. Steps smaller than a 256th of a weight are lost in bfloat16."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """How a named model computes attention; "auto" takes what transformers takes for it."""
    value_model: Literal["shared", "separate"] = "shared"
    """"shared" reads values off the language model's states, "separate" off those of a second model that learns only values: a
    copy of the language model as the warm-up leaves it, which costs its memory and its passes too."""
    lora_rank: int = 0
    """Rank of adapters (LoRA) that learn in place of the weights, after the warm-up; 0: the weights learn."""
    lora_alpha: float | None = None
    """Adapters are scaled by lora_alpha / lora_rank; None: twice the rank."""
    lora_targets: tuple[str, ...] = ()
    """Ends of the names of the linear layers that get adapters, the head not among them; empty: all of those."""
    rewards: Literal["tokens", "scalar"] = "tokens"
    """"tokens" releases the task's rewards per token, "scalar" only their sum, on the last token."""
    assigner: str | None = None
    """Splits what a text earns over its tokens: last, uniform, discounted, prefix_difference, leave_one_out, shapley, or
    "module:Name" (docs/CREDIT.md); None: the task's own, or its rewards as they are."""
    streams: bool = True
    """Keep the task's streams; without, every token is in one stream."""
    updates: int = 80
    """The budget, in PPO updates; other agents get as many episodes."""
    num_slots: int = 256
    """Texts written side by side (per process)."""
    temperature: float = 1.0
    """Of sampling."""
    top_k: int | None = None
    """Sample from the k most probable tokens only; None: from all."""
    top_p: float = 1.0
    """Sample from the fewest most probable tokens that hold this much probability."""
    warmup_steps: int = 300
    """Supervised steps on the task's demonstrations before learning; skipped where the task has none."""
    warmup_learning_rate: float = 3e-3
    """Step size of the warm-up, at its start."""
    warmup_batch: int = 128
    """Demonstrations per step of the warm-up."""
    warmup_draw: int | None = None
    """Demonstrations drawn at a time, for several steps: the size of a task's fixed set makes the warm-up passes over all of
    it; None: as many as a step needs."""
    eval_episodes: int = 512
    """Episodes played before and after, for the table."""
    seed: int = 0
    """Of everything drawn in the run."""
    device: str = "auto"
    """"auto" takes CUDA where there is one; else "cpu" or "cuda"."""
    out: Path | None = None
    """The run folder; default: runs/<task>-<time>."""
    reward_workers: int = 0
    """Workers that reward texts while others are written, for rewards that take their time; 0: in the step itself."""
    reward_worker_kind: Literal["thread", "process"] = "thread"
    """What the workers are."""
    reward_timeout: float | None = None
    """Seconds that one call of the task's rewards may take; None: no limit."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The options of PPO."""

    def __post_init__(self) -> None:
        for name in ("updates", "num_slots", "eval_episodes", "layers", "width", "heads", "warmup_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("warmup_steps", "lora_rank", "seed", "reward_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not self.lora_rank and (self.lora_alpha is not None or self.lora_targets):
            raise ValueError("lora_alpha and lora_targets are options of adapters; give lora_rank too")
        if not self.reward_workers and (self.reward_timeout is not None or self.reward_worker_kind != "thread"):
            raise ValueError("reward_timeout and reward_worker_kind are options of workers; give reward_workers too")
        if self.reward_timeout is not None and not self.reward_timeout > 0:
            raise ValueError(f"reward_timeout is {self.reward_timeout}; it must be above 0, or None")
        if self.warmup_draw is not None and (self.warmup_draw < 1 or self.warmup_draw % self.warmup_batch):
            raise ValueError(
                f"warmup_draw is {self.warmup_draw}; it must be a multiple of warmup_batch, {self.warmup_batch}, or None"
            )
        if self.num_slots > self.ppo.episodes_per_update:
            raise ValueError(
                f"num_slots is {self.num_slots} but an update collects {self.ppo.episodes_per_update} episodes; lower "
                "num_slots or raise episodes_per_update"
            )


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
    """A few episodes of the warmed-up model."""
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
    reporter = reporter or Reporter()
    start = time.perf_counter()
    device = pick_device(config.device)
    process = PartialState(cpu=device == "cpu")  # several of them under `accelerate launch`; one of them writes
    # 1) task, model, agent
    task = build_task(config)
    rehearse(task)
    make_agent = find_agent(config.agent)
    if make_agent is not PPO and replace(config.ppo, episodes_per_update=PPOConfig.episodes_per_update) != PPOConfig():
        raise ValueError(f"the agent is {config.agent!r}, which does not read the options of PPO; leave them out")
    policy = build_policy(config, task, device, rank=process.process_index)
    if config.lora_rank:
        check_lora(policy.model, config.lora_rank, config.lora_alpha, config.lora_targets)
    folder = _make_folder(config, task) if process.is_main_process else Path(os.devnull)
    # 2) warm-up: the form of the task's texts, not yet its goal
    warm_up_policy(config, task, policy, reporter)
    prepare_learning(config, policy)
    played_before = _play(config, task, policy, device)
    before = judge(task, played_before)
    options = {"config": config.ppo} if make_agent is PPO else {}
    agent = resolve_agent(make_agent, policy, seed=config.seed, **options)
    # 3) learn
    late = {"reward_worker_kind": config.reward_worker_kind, "reward_timeout": config.reward_timeout}
    envs = TextGenVectorEnv(
        config.num_slots,
        task,
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
        device=device,
        keep_episodes=True,
        **({"reward_workers": config.reward_workers, **late} if config.reward_workers else {}),
    )
    envs.reset(seed=config.seed + process.process_index * config.num_slots)
    budget = config.updates * config.ppo.episodes_per_update
    reporter.phase("learning", budget)
    with _kept(agent, folder, process.is_main_process):
        with (folder / "metrics.jsonl" if process.is_main_process else folder).open("w", encoding="utf-8") as log:
            agent.learn(envs, budget, _logger(task, envs, log, reporter))
        envs.close()
        # 4) leave the policy behind, and judge it
        if process.is_main_process:
            _save(agent, folder)
        played = _play(config, task, agent.policy, device)
        after = judge(task, played)
    seconds = time.perf_counter() - start
    if process.is_main_process:
        _write_json(folder / "result.json", {"before": _finite(before), "after": _finite(after), "seconds": seconds})
    return Run(folder, before, after, seconds, played_before[:4], played[:4], policy.model.tokenizer)


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
    return RewardForm(task, config.rewards, config.streams, config.assigner)


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


def _logger(task: Task, envs: TextGenVectorEnv, log: Any, reporter: Reporter) -> Any:
    def callback(figures: Mapping[str, float]) -> None:
        finished = envs.take_episodes()
        judged = judge(task, finished) if finished else {}
        refuse_clash(judged.keys() - JUDGED, figures)  # what is JUDGED, learners may report too, of the same episodes
        row = {**figures, **judged}
        log.write(json.dumps(_finite(row), allow_nan=False) + "\n")
        log.flush()
        reporter.advance(int(row.get("episodes", 0)), row)

    return callback


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Give None for what is nan or infinite: JSON has no word for it."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in figures.items()}


@contextmanager
def _kept(agent: Agent, folder: Path, writes: bool) -> Iterator[None]:
    """Write the policy into the run folder where learning or evaluating raises, and let the exception pass."""
    try:
        yield
    except BaseException as error:  # Ctrl-C too
        if writes:
            try:
                _save(agent, folder)
            except Exception as failure:
                error.add_note(f"the policy could not be written into {folder}: {failure}")
            else:
                error.add_note(f"the policy, as far as it had learned, is in {folder}")
        raise


def _save(agent: Agent, folder: Path) -> None:
    """Let the agent write beside what is there and rename it then, so that a kill leaves no half of a policy."""
    part = folder / "unfinished"
    part.mkdir(exist_ok=True)
    agent.save(part)
    for item in part.iterdir():
        target = folder / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    part.rmdir()


def _make_folder(config: TrainConfig, task: Task) -> Path:
    name = config.task if isinstance(config.task, str) else type(task).__name__
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = config.out or Path("runs") / f"{name.replace('/', '-').replace(':', '-')}-{stamp}"
    if any((folder / name).exists() for name in ("config.json", "policy", "value", "value_head.safetensors")):
        raise ValueError(f"{folder} holds a run already; name another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", asdict(config))
    return folder


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
