"""A short supervised warm-up on a task's demonstrations, so that a model built from a config writes the task's form.

Left out on purpose: data sets. A task draws as many demonstrations as are asked for; one that has a fixed set gives each of
it once where as many are drawn at a time as it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from textgym import Task
from textgym.prompts import check_room, encode_prompt
from textgym.rules import Rules
from textgym.task import Demonstration
from textgym_agents.losses import masked_mean
from textgym_agents.model import ActorCritic


def warm_up(
    model: ActorCritic,
    task: Task,
    *,
    steps: int,
    batch: int = 128,
    draw: int | None = None,
    learning_rate: float = 3e-3,
    seed: int = 0,
    callback: Callable[[int, float], None] | None = None,
) -> float:
    """Maximise the likelihood of the task's demonstrations, each closed by end-of-text, a stop string or the length limit.

    Args:
        model: learns; its value head is left alone.
        task: gives ``demonstrations(rng, count)``.
        steps: optimizer steps, with a learning rate that falls linearly to 0.
        batch: demonstrations per step.
        draw: demonstrations drawn from the task at a time, for several steps; default: ``batch``. The size of a task's fixed
            set makes the steps passes over all of it.
        learning_rate: of AdamW, at the start.
        seed: of the demonstrations drawn.
        callback: called with the step and its loss.

    Returns:
        The last step's loss, in nats per response token.

    Raises:
        ValueError: the task has no demonstrations, one does not fit, or ``draw`` is no multiple of ``batch``.
    """
    draw = draw or batch
    if draw % batch:
        raise ValueError(f"draw is {draw}; it must be a multiple of the batch, {batch}, so that each step has as many")
    rng = np.random.default_rng(seed)
    rules = Rules(task)
    optimizer = torch.optim.AdamW(model.lm.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-2, total_iters=max(1, steps))
    loss = torch.tensor(float("nan"))
    examples: Sequence[Demonstration] = []
    for step in range(steps):
        if not examples:
            examples = task.demonstrations(rng, draw)
        if not examples:
            raise ValueError(f"{type(task).__name__} has no demonstrations to warm up on; set the warm-up steps to 0")
        ids, prompt_lengths, mask = (tensor.to(model.lm.device) for tensor in demonstration_batch(examples[:batch], rules))
        examples = examples[batch:]
        logprobs, _, _ = model(ids, prompt_lengths, mask)
        loss = -masked_mean(logprobs, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.lm.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if callback is not None:
            callback(step + 1, loss.item())
    return loss.item()


def demonstration_batch(examples: Sequence[Demonstration], rules: Rules) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay demonstrations out. Returns ids int64 (B, L), prompt lengths int64 (B,), and the agent's tokens, bool (B, T).

    Raises:
        ValueError: one does not fit.
    """
    rows, masks, prompt_lengths = [], [], []
    for prompt, text in examples:
        encoded = encode_prompt(prompt, rules.tokenizer)
        check_room(encoded, rules.max_prompt_tokens, "demonstration prompt")
        response, by_agent = rules.demonstration(encoded, text)
        if by_agent.sum() > rules.max_new_tokens or len(by_agent) > rules.max_response_tokens:
            raise ValueError(
                f"demonstration has {len(by_agent)} tokens with its end, {by_agent.sum()} of them the agent's, but "
                f"max_new_tokens is {rules.max_new_tokens} and there is room for {rules.max_response_tokens}: {text!r}"
            )
        rows.append(torch.from_numpy(np.concatenate([np.asarray(encoded.ids), response])))
        masks.append(torch.from_numpy(by_agent))
        prompt_lengths.append(len(rows[-1]) - len(by_agent))
    return pad_sequence(rows, batch_first=True), torch.tensor(prompt_lengths), pad_sequence(masks, batch_first=True)
