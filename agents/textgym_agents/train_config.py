"""The options of a run: a dataclass whose fields are those of ``textgym train``, and how a run folder keeps them.

Left out on purpose: options of agents. PPO's are here because they are the command's too; every other agent has its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from textgym_agents.checkpoint import write_json
from textgym_agents.ppo_config import PPOConfig

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
    agent_args: Annotated[dict[str, Any], JSON] = field(default_factory=dict)
    """Options of an agent other than PPO, as a JSON object: fields of its config, or arguments of its constructor."""
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
    """Splits what a text earns over its tokens: last, uniform, discounted, prefix_difference, leave_one_out, shapley; attention
    or monte_carlo, which ask the policy that learns; or "module:Name" (docs/CREDIT.md). None: the task's own, or its rewards
    as they are."""
    streams: bool = True
    """Keep the task's streams; without, every token is in one stream."""
    updates: int = 80
    """The budget, in updates of ppo.episodes_per_update episodes; other agents get as many episodes, and an option of theirs
    called episodes_per_update follows."""
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
    checkpoint_every: int = 0
    """Keep what a run needs to go on, every so many calls of the agent's callback (updates); 0: never."""
    resume: Path | None = None
    """A run folder with a checkpoint: go on there, with the options that it has."""
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
        for name in ("warmup_steps", "lora_rank", "seed", "reward_workers", "checkpoint_every"):
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


def write_config(config: TrainConfig, path: Path) -> None:
    """Write a run's options as JSON; objects as what they print, which cannot be read back."""
    values = asdict(replace(config, task=None, agent=None)) | {"task": config.task, "agent": config.agent}
    write_json(path, {each.name: values[each.name] for each in fields(config)})


def resumed(config: TrainConfig) -> TrainConfig:
    """Give the options of the run that ``config.resume`` names.

    Args:
        config: says which; a task or an agent that is an object is taken from here, since a folder cannot hold it. Nothing
            else may be given.

    Raises:
        ValueError: there is no run, or something else was given.
    """
    assert config.resume is not None
    path = config.resume / "config.json"
    if not path.exists():
        raise ValueError(f"{config.resume} holds no run to resume: there is no config.json")
    objects = {name: getattr(config, name) for name in ("task", "agent") if not isinstance(getattr(config, name), str)}
    given = [
        name
        for name in (each.name for each in fields(config))
        if name not in ("resume", *objects) and getattr(config, name) != getattr(TrainConfig(), name)
    ]
    if given:
        raise ValueError(f"a resumed run has the options that it was begun with; leave out {', '.join(given)}")
    values = json.loads(path.read_text(encoding="utf-8"))
    values["ppo"] = PPOConfig(**values["ppo"])
    values["lora_targets"] = tuple(values["lora_targets"])
    return TrainConfig(**values | {"out": config.resume, "resume": config.resume} | objects)
