"""One PPO or GRPO step of TRL at a time, in a process and a virtual environment of its own.

Left out on purpose: anything of textgym. The script reads a load as JSON, builds TRL's trainer as its documentation does, and
then takes one step whenever its standard input has a line, answering with a line of JSON: the episodes of the step, the useful
tokens that were generated, and the seconds between the line and the end of the step. Everything else goes to stderr.

What is chosen, in TRL's favour where there is a choice: float32, no dropout, no gradient checkpointing, nothing saved,
generation in batches of ``slots`` with the KV cache, a reward model of one layer of width 8 (ours has none; TRL's PPO cannot
do without), minibatches that are one forward pass. TRL's PPO has a value network of the policy's size, as it must. TRL's GRPO
has none; it generates all episodes in one batch, or by transformers' continuous batching, each prompt ``group`` times, and its
rewards cost nothing.

Usage: ``python -P trl_step.py ppo|grpo|grpo-continuous load.json``, with trl 1.12 (the last release that has PPO).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    LogitsProcessor,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]
from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore[reportMissingImports]

FOREVER = 10_000  # steps; the parent process decides when to stop


class ForcedEnd(LogitsProcessor):
    """End-of-text is certain at a row's target and impossible before it; so is padding, which TRL reads as an end."""

    def __init__(self, targets: torch.Tensor, prompt_width: int, eos: int, pad: int) -> None:
        self.targets, self.prompt_width, self.eos, self.pad = targets, prompt_width, eos, pad

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores of both."""
        due = input_ids.shape[1] - self.prompt_width + 1 >= self.targets
        scores[:, [self.eos, self.pad]] = -float("inf")
        scores[due] = -float("inf")
        scores[due, self.eos] = 0.0
        return scores


class ForcedGenerate:
    """A model's ``generate`` and ``generate_batch`` whose texts end where the load says.

    Attributes:
        tokens: useful tokens generated so far.
    """

    def __init__(self, model: Any, targets: dict[tuple[int, ...], list[int]], eos: int, pad: int) -> None:
        self.model, self.original, self.targets, self.eos, self.pad = model, model.generate, targets, eos, pad
        self.tokens = 0
        model.generate, model.generate_batch = self, self.generate_batch

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        """Generate in a padded batch."""
        due = self._due([ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)])
        width = input_ids.shape[1]
        force = ForcedEnd(torch.tensor(due), width, self.eos, self.pad)
        out = self.original(input_ids=input_ids, attention_mask=attention_mask, logits_processor=[force], **kwargs)
        sequences = out if isinstance(out, torch.Tensor) else out.sequences
        self.tokens += int(((sequences[:, width:] == self.eos).int().argmax(1) + 1).sum())
        return out

    def generate_batch(
        self, inputs: list[list[int]], generation_config: Any, continuous_batching_config: Any, progress_bar: bool
    ) -> dict[str, Any]:
        """Generate by continuous batching, as the original does but that each text has a length of its own."""
        with self.model.continuous_batching_context_manager(
            generation_config=generation_config, continuous_batching_config=continuous_batching_config, timeout=5, warmup=False
        ) as manager:
            due = self._due(inputs)
            asked = [
                manager.add_request(ids, max_new_tokens=target, eos_token_id=-1)
                for ids, target in zip(inputs, due, strict=True)
            ]
            written: dict[str, Any] = {}
            while len(written) < len(asked):
                result = manager.get_result(timeout=1)
                if result is None and not manager.is_running():
                    raise RuntimeError("continuous batching stopped before every text was written")
                if result is not None and result.is_finished():
                    written[result.request_id] = result
        self.tokens += sum(len(result.generated_tokens) for result in written.values())
        return {name: written[name] for name in asked}

    def _due(self, prompts: list[list[int]]) -> list[int]:
        """Give the target of each row; the k-th time that a batch holds a prompt, it is the prompt's k-th."""
        seen: Counter[tuple[int, ...]] = Counter()
        due = []
        for prompt in map(tuple, prompts):
            due.append(self.targets[prompt][seen[prompt]])
            seen[prompt] += 1
        return due


class OneAtATime(TrainerCallback):
    """Waits for a line before each step, and answers with its figures after it."""

    def __init__(self, generate: ForcedGenerate, episodes: int, optimizer_steps: int, answers: TextIO) -> None:
        self.generate, self.episodes, self.optimizer_steps, self.answers = generate, episodes, optimizer_steps, answers
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say that all is built; wait for the first line."""
        self._answer({"ready": True})
        self._wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count optimizer steps (TRL's PPO calls this once for all of them); at the last, answer and wait."""
        if state.global_step % self.optimizer_steps:
            return
        seconds = time.perf_counter() - self.started
        self._answer({"episodes": self.episodes, "tokens": self.generate.tokens, "seconds": seconds})
        self._wait()

    def _answer(self, figures: dict[str, Any]) -> None:
        self.answers.write(json.dumps(figures) + "\n")
        self.answers.flush()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit(0)
        self.generate.tokens = 0
        self.started = time.perf_counter()


def make_ppo(load: dict[str, Any], tokenizer: Any, folder: str, answers: TextIO) -> PPOTrainer:
    """Build TRL's PPO on the load."""
    model, reference = (AutoModelForCausalLM.from_pretrained(load["model"], dtype=torch.float32) for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(load["model"], num_labels=1, dtype=torch.float32)
    room = model.config.max_position_embeddings
    tiny = GPT2Config(vocab_size=len(tokenizer), n_positions=room, n_embd=8, n_layer=1, n_head=1)
    tiny.num_labels = 1
    targets = {tuple(ids): [target] for ids, target in zip(load["prompts"], load["targets"], strict=True)}
    generate = ForcedGenerate(model, targets, tokenizer.eos_token_id, tokenizer.pad_token_id)
    episodes = len(load["prompts"])
    config = PPOConfig(
        output_dir=folder,
        total_episodes=episodes * FOREVER,
        per_device_train_batch_size=episodes,
        gradient_accumulation_steps=1,
        num_mini_batches=episodes // load["minibatch"],
        local_rollout_forward_batch_size=load["slots"],
        num_ppo_epochs=load["epochs"],
        response_length=load["max_length"],
        stop_token="eos",
        temperature=1.0,
        kl_coef=load["kl_coef"],
        num_sample_generations=0,
        learning_rate=load["learning_rate"],
        **_quiet(),
    )
    return PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=model,
        ref_model=reference,
        reward_model=GPT2ForSequenceClassification(tiny),
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": load["prompts"]}),
        callbacks=[OneAtATime(generate, episodes, 1, answers)],
    )


def make_grpo(load: dict[str, Any], tokenizer: Any, folder: str, answers: TextIO, continuous: bool = False) -> GRPOTrainer:
    """Build TRL's GRPO on the load: as many episodes of the same lengths, ``group`` of them from each prompt."""
    model = AutoModelForCausalLM.from_pretrained(load["model"], dtype=torch.float32)
    group, episodes = load["group"], len(load["prompts"])
    prompts = load["prompts"][: episodes // group]
    targets = {tuple(ids): load["targets"][i * group : (i + 1) * group] for i, ids in enumerate(prompts)}
    generate = ForcedGenerate(model, targets, tokenizer.eos_token_id, tokenizer.pad_token_id)
    minibatches = episodes // load["minibatch"]
    config = GRPOConfig(
        output_dir=folder,
        max_steps=minibatches * load["epochs"] * FOREVER,
        per_device_train_batch_size=load["minibatch"],
        gradient_accumulation_steps=1,
        steps_per_generation=minibatches,
        num_iterations=load["epochs"],
        num_generations=group,
        max_completion_length=load["max_length"],
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        beta=load["kl_coef"],
        learning_rate=load["learning_rate"],
        disable_dropout=True,
        use_transformers_continuous_batching=continuous,
        transformers_continuous_batching_config=load["continuous_batching"] if continuous else None,
        **_quiet(),
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=pay_in_turn,
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": [tokenizer.decode(ids) for ids in prompts]}),
        callbacks=[OneAtATime(generate, episodes, minibatches * load["epochs"], answers)],
    )


def pay_in_turn(completions: list[Any], **kwargs: Any) -> list[float]:
    """Pay 1 and -1 in turn: rewards that cost no time, and advantages that are not 0."""
    return [1.0 - 2.0 * (i % 2) for i in range(len(completions))]


def _quiet() -> dict[str, Any]:
    return {
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def main(kind: str, path: str) -> None:
    """Read the load, build the trainer, take steps."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    load = json.loads(Path(path).read_text())
    if load["threads"]:
        torch.set_num_threads(load["threads"])
    tokenizer = AutoTokenizer.from_pretrained(load["model"], padding_side="left")
    tokenizer.pad_token_id = load["pad"]
    with tempfile.TemporaryDirectory() as folder:
        if kind == "ppo":
            trainer = make_ppo(load, tokenizer, folder, answers)
        else:
            trainer = make_grpo(load, tokenizer, folder, answers, continuous=kind == "grpo-continuous")
        trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
