"""``textgym bench speed``: everything that is said about speed, measured side by side in one run.

Left out on purpose: the measuring itself, which the other modules of this package do; here is which contestants meet at which
load, and in which tables the figures end up.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from textgym_agents.bench.contestants import (
    BestThreads,
    Contestant,
    ContinuousBatching,
    DecodeFloor,
    batches,
    carried_over,
    drained,
    shares,
)
from textgym_agents.bench.env_step import EnvBenchConfig, bench_env
from textgym_agents.bench.load import Load, LoadConfig, make_model
from textgym_agents.bench.report import Row, alternate, compare, write_report
from textgym_agents.bench.update import OurUpdate, PaddedUpdate, peak_memory
from textgym_agents.bench.whole_step import StepConfig, step_contestants

Part = Literal["rollout", "sweep", "share", "update", "step", "env"]
PARTS: tuple[Part, ...] = ("rollout", "sweep", "share", "update", "step", "env")

GENERATE = "Hugging Face generate"
DRAINED = "textgym collect, drained"
CARRIED = "textgym Collector, carried over"
REBUILT = "textgym Collector, carried over, cache rebuilt after each collection"
CONTINUOUS = "transformers continuous batching"
FLOOR = "floor: bare decode loop with sampling"


@dataclass(frozen=True)
class SpeedConfig:
    """What is measured, and at which sizes."""

    parts: tuple[Part, ...] = PARTS
    """Which tables to make."""
    out: Path = Path("bench-speed")
    """Folder for speed.json, speed.md, speed.png and speed.svg."""
    plot: bool = True
    """Draw the plot (needs matplotlib)."""
    load: LoadConfig = field(default_factory=LoadConfig)
    """The load and the model."""
    slots: int = 32
    """Texts side by side."""
    sweep: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Slots of the sweep; each with four episodes per slot."""
    large_vocab_size: int = 50_000
    """A second V for the update; 0: none."""
    minibatch: int = 32
    """Episodes per optimizer step."""
    epochs: int = 2
    """Passes over the episodes of a whole step."""
    sb3_episodes: float = 8.0
    """Episodes' worth of tokens that SB3 plays; it would need minutes for more."""
    repeats: int = 5
    """Timed rounds, after one that is not timed; medians are reported."""
    least_seconds: float = 4.0
    """Who rolls out runs again in a timed round until its runs took as long."""
    sweep_repeats: int = 3
    """The same for the sweep."""
    threads: int = 2
    """torch threads; 0 leaves them as they are."""
    choose_threads: bool = True
    """Let everyone who rolls out run on one thread or on all, whichever was faster in the round that is not timed."""
    trl_python: Path | None = None
    """Python of an environment with trl 1.12; None: TRL is not run."""
    quick: bool = False
    """Tiny sizes, to see that everything runs; the figures mean nothing."""

    def __post_init__(self) -> None:
        for name in ("slots", "minibatch", "epochs", "repeats", "sweep_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.least_seconds < float("inf"):
            raise ValueError(f"least_seconds is {self.least_seconds}; it must be at least 0")
        if self.load.episodes < self.slots or self.load.episodes % self.minibatch:
            raise ValueError(
                f"episodes is {self.load.episodes}; it must be at least slots = {self.slots} and a multiple of minibatch = "
                f"{self.minibatch}"
            )
        if self.trl_python is not None and not self.trl_python.exists():
            raise ValueError(f"trl_python is {self.trl_python}, which is not there; give the python of an environment with trl")


def speed(config: SpeedConfig, tell: Callable[[str], None] = print) -> list[Row]:
    """Measure the parts, write the report and the plot. Returns the rows."""
    if config.plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the plot needs matplotlib: pip install 'textgym[plot]', or --no-plot")
    draw = importlib.import_module("textgym_agents.bench.plot").draw if config.plot else None
    config = _tiny(config) if config.quick else config
    measure: dict[Part, Callable[[SpeedConfig], list[Row]]] = {
        "rollout": _rollout,
        "sweep": _sweep,
        "share": _share,
        "update": _update,
        "step": _step,
        "env": _env,
    }
    rows: list[Row] = []
    for part in config.parts:
        tell(part)
        if config.threads:
            torch.set_num_threads(config.threads)
        rows += measure[part](config)
        write_report(config.out, rows, asdict(config))  # after every part: a later one that fails costs only itself
    if draw is not None:
        draw(rows, config.out)
    return rows


def _rollout(config: SpeedConfig) -> list[Row]:
    rows = []
    for lengths in ("lognormal", "uniform"):
        load_config = replace(config.load, lengths=lengths)
        setting = f"{load_config.episodes} episodes, {config.slots} slots, {load_config.describe_lengths()}"
        setting += f", {load_config.describe_model()}"
        rows += _rollouts(load_config, config, config.slots, config.repeats, "rollout", setting)
    return rows


def _sweep(config: SpeedConfig) -> list[Row]:
    rows = []
    for slots in config.sweep:
        load_config = replace(config.load, episodes=4 * slots)
        setting = f"{slots} slots, {load_config.episodes} episodes"
        rows += _rollouts(load_config, config, slots, config.sweep_repeats, "sweep", setting)
    return rows


def _rollouts(load_config: LoadConfig, config: SpeedConfig, slots: int, repeats: int, part: str, setting: str) -> list[Row]:
    """Alternate all who roll out; check that those who play the load to its end wrote exactly its tokens."""
    load, seed = Load(load_config), load_config.seed
    model = make_model(load_config, load)
    makers: dict[str, Callable[[], Contestant]] = {
        GENERATE: lambda: batches(model.lm, load, slots),
        CONTINUOUS: lambda: ContinuousBatching(model.lm, load, slots, seed),
        DRAINED: lambda: drained(model, load, slots, seed),
        # Prompts are handed out in order, so one who never drains has a load of his own.
        CARRIED: lambda: carried_over(model, Load(load_config), slots, seed, has_learned=False),
        REBUILT: lambda: carried_over(model, Load(load_config), slots, seed, has_learned=True),
        FLOOR: lambda: DecodeFloor(model, load, slots, seed),
    }
    contestants = {name: BestThreads(make, choose=config.choose_threads) for name, make in makers.items()}
    work: dict[str, float] = dict.fromkeys((GENERATE, CONTINUOUS, DRAINED), float(load.useful))
    rates = alternate(contestants, repeats, work, config.least_seconds)
    notes = {name: f"on {contestant.threads} of {torch.get_num_threads()} threads" for name, contestant in contestants.items()}
    for name in (CARRIED, REBUILT):
        notes[name] += "; tokens sampled, all of which end up in a collection"
    notes[FLOOR] += "; no prompts, no environment, no bookkeeping"
    return compare(rates, GENERATE, part=part, setting=setting, unit="useful tokens/s", slots=slots, notes=notes)


def _share(config: SpeedConfig) -> list[Row]:
    load = Load(config.load)
    model = make_model(config.load, load)
    runs = [shares(model, load, config.slots, config.load.seed) for _ in range(config.repeats)]
    setting = f"time of a drained collection, {config.slots} slots"
    rates = {name: [100 * run[name] for run in runs] for name in runs[0]}
    rates["environment and bookkeeping"] = [100 * (run["environment"] + run["bookkeeping"]) for run in runs]
    return [
        Row("share", setting, name, "% of the time", statistics.median(values), repeats=tuple(values))
        for name, values in rates.items()
    ]


def _update(config: SpeedConfig) -> list[Row]:
    rows = []
    for vocab_size in filter(None, (config.load.vocab_size, config.large_vocab_size)):
        load_config = replace(config.load, vocab_size=vocab_size)
        load = Load(load_config)
        model = make_model(load_config, load)
        sizes = (load, config.slots, config.minibatch, load_config.seed)
        contestants: dict[str, Contestant] = {
            "padded, all logits": PaddedUpdate(model, *sizes),
            "textgym PPO": OurUpdate(model, *sizes),
        }
        setting = f"minibatches of {config.minibatch}, {load_config.describe_model()}"
        rates = alternate(contestants, config.repeats, dict.fromkeys(contestants, load_config.episodes))
        rows += compare(rates, "padded, all logits", part="update", setting=setting, unit="samples/s")
        rows += _memory(load_config, config, f"memory of one optimizer step, {setting}")
    return rows


def _memory(load_config: LoadConfig, config: SpeedConfig, setting: str) -> list[Row]:
    """Measure one minibatch each, above what there was before; both have taken a step, so the optimizer's state is there."""
    load_config = replace(load_config, episodes=config.minibatch)
    load = Load(load_config)
    slots = min(config.slots, config.minibatch)
    peaks = {}
    for name, kind in (("padded, all logits", PaddedUpdate), ("textgym PPO", OurUpdate)):
        update = kind(make_model(load_config, load), load, slots, config.minibatch, load_config.seed)
        update.run()
        peaks[name] = (peak_memory(update.run) / 2**20,)
    notes = dict.fromkeys(peaks, "most that tensors held above model and optimizer, gradients included")
    return compare(peaks, "padded, all logits", part="update", setting=setting, unit="MiB", notes=notes)


def _step(config: SpeedConfig) -> list[Row]:
    step = StepConfig(config.slots, config.minibatch, config.epochs, config.threads)
    contestants, missing = step_contestants(config.load, step, config.trl_python, config.sb3_episodes)
    load = config.load
    setting = (
        f"{load.episodes} episodes, {config.slots} slots, minibatches of {config.minibatch}, {config.epochs} epochs, "
        f"reference model, {load.describe_lengths()}, {load.describe_model()}"
    )
    rates = alternate(contestants, config.repeats)
    reference = next((name for name in rates if name == "TRL PPO"), next(iter(rates)))
    rows = compare(rates, reference, part="step", setting=setting, unit="episodes/s")
    return rows + [Row("step", setting, name, "episodes/s", None, note=how) for name, how in missing.items()]


def _env(config: SpeedConfig) -> list[Row]:
    env_config = EnvBenchConfig(slots=config.slots, repeats=config.repeats)
    if config.quick:
        env_config = EnvBenchConfig(slots=4, prompt_tokens=3, new_tokens=50, vocab_size=64, steps=100, repeats=1)
    rows = bench_env(env_config)
    return [Row("env", env_config.describe(), row.name, "microseconds", row.microseconds, note=row.note) for row in rows]


def _tiny(config: SpeedConfig) -> SpeedConfig:
    load = replace(config.load, episodes=8, mean_length=4.0, max_length=12, vocab_size=64, layers=1, width=16, heads=2)
    return replace(
        config,
        load=load,
        slots=4,
        sweep=(2, 4),
        large_vocab_size=128,
        minibatch=4,
        repeats=1,
        least_seconds=0.0,
        sweep_repeats=1,
        sb3_episodes=4.0,
    )
