"""A whole PPO step, from prompts to new weights: ours, TRL's PPO and GRPO, Stable-Baselines3's PPO.

Left out on purpose: what any of them learns. All use the same model sizes and the same load, and are told to do the same:
a reference model with a KL penalty, minibatches and epochs as given. TRL runs in a Python of its own, kept alive between steps.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from textgym_agents.bench.contestants import Contestant, ForcedLengths, continuous_settings, make_envs
from textgym_agents.bench.load import Load, LoadConfig, make_model
from textgym_agents.ppo import PPO, PPOConfig

SCRIPT = Path(__file__).with_name("trl_step.py")
TRL = {
    "ppo": "TRL PPO",
    "grpo": "TRL GRPO (no value network)",
    "grpo-continuous": "TRL GRPO, continuous batching (no value network)",
}
HOW_TO_TRL = "python -m venv trl && trl/bin/pip install 'trl == 1.12.0' requests; then --trl-python trl/bin/python"
HOW_TO_SB3 = "pip install 'textgym[sb3]'"


@dataclass(frozen=True)
class StepConfig:
    """What a step is, the same for everyone."""

    slots: int
    """Texts side by side."""
    minibatch: int
    """Episodes per optimizer step."""
    epochs: int
    """Passes over the episodes."""
    threads: int
    """torch threads."""
    kl_coef: float = 0.05
    """Weight of the KL penalty."""
    learning_rate: float = 3e-6
    """Of AdamW."""
    group: int = 4
    """Episodes per prompt in GRPO."""


class OurStep:
    """One ``PPO.update``, with the values from the policy's own states or from a second model of the same size."""

    def __init__(self, load_config: LoadConfig, step: StepConfig, *, separate_value: bool = False) -> None:
        self.load = Load(load_config)
        self.envs = make_envs(self.load, step.slots, load_config.seed)
        model = make_model(load_config, self.load, separate_value=separate_value)
        config = PPOConfig(
            episodes_per_update=load_config.episodes,
            epochs=step.epochs,
            minibatch_episodes=step.minibatch,
            kl_coef=step.kl_coef,
            learning_rate=step.learning_rate,
        )
        self.ppo = PPO(ForcedLengths(model, step.slots, self.load, seed=load_config.seed), config)

    def run(self) -> tuple[float, float]:
        """Take the step. Returns episodes and seconds."""
        self.load.handed_out = 0
        start = time.perf_counter()
        figures = self.ppo.update(self.envs)
        seconds = time.perf_counter() - start
        _check_tokens("our PPO", round(figures["tokens"] * len(self.load.prompts)), self.load)
        return len(self.load.prompts), seconds

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()


class TrlStep:
    """A step of TRL in a process of its own, which waits between steps; by that process's clock.

    Raises:
        RuntimeError: it could not be started, or ended; with the last lines that it wrote.
    """

    def __init__(self, python: Path, kind: str, load_config: LoadConfig, step: StepConfig) -> None:
        self.kind = kind
        self.load = Load(load_config)
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        make_model(load_config, self.load).save(folder)
        (folder / "load.json").write_text(json.dumps(self._document(folder, step)))
        self._errors = (folder / "stderr.txt").open("w+", encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [str(python), "-P", str(SCRIPT), kind, str(folder / "load.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**environment, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
        )
        self._answer()

    def run(self) -> tuple[float, float]:
        """Have it take a step. Returns episodes and seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        figures = self._answer()
        _check_tokens(f"TRL's {self.kind.upper()}", int(figures["tokens"]), self.load)
        return figures["episodes"], figures["seconds"]

    def close(self) -> None:
        """End the process and remove its files."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()
        self._folder.cleanup()

    def _document(self, folder: Path, step: StepConfig) -> dict[str, object]:
        return {
            "model": str(folder / "policy"),
            "prompts": [ids.tolist() for ids in self.load.prompts],
            "targets": self.load.targets.tolist(),
            "max_length": self.load.max_new_tokens,
            "pad": self.load.tokenizer.bos_token_id,
            "slots": step.slots,
            "minibatch": step.minibatch,
            "epochs": step.epochs,
            "kl_coef": step.kl_coef,
            "learning_rate": step.learning_rate,
            "group": step.group,
            "threads": step.threads,
            "continuous_batching": continuous_settings(self.load, step.slots, seed=0),
        }

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = "".join(self._errors.readlines()[-12:])
            self.close()
            raise RuntimeError(
                f"TRL's {self.kind.upper()} ended before it had taken its step; the last lines of its output:\n{last}"
            )
        return json.loads(line)


def step_contestants(
    load_config: LoadConfig, step: StepConfig, trl_python: Path | None, sb3_episodes: float
) -> tuple[Mapping[str, Contestant], Mapping[str, str]]:
    """Build everyone who can run here. Returns contestants and, for those who cannot, what to install; both by name."""
    contestants: dict[str, Contestant] = {
        "textgym PPO, shared value head": OurStep(load_config, step),
        "textgym PPO, separate value model": OurStep(load_config, step, separate_value=True),
    }
    missing: dict[str, str] = {}
    for kind, name in TRL.items():
        if trl_python is None:
            missing[name] = HOW_TO_TRL
        else:
            contestants[name] = TrlStep(trl_python, kind, load_config, step)
    name = "SB3 PPO (whole texts recomputed, no reference)"
    if importlib.util.find_spec("stable_baselines3") is None:
        missing[name] = HOW_TO_SB3
    else:
        sb3 = importlib.import_module("textgym_agents.bench.sb3_step")
        load = Load(load_config)
        model = make_model(load_config, load)
        minibatches = max(1, load_config.episodes // step.minibatch)
        contestants[name] = sb3.SB3Step(model, load, step.slots, sb3_episodes, minibatches, step.epochs, load_config.seed)
    return contestants, missing


def _check_tokens(who: str, tokens: int, load: Load) -> None:
    if tokens != load.useful:
        raise RuntimeError(f"{who} wrote {tokens} tokens where the load asks for {load.useful}")
