"""A short supervised warm-up on a task's demonstrations, so that a model built from a config writes the task's form.

Left out on purpose: data sets, epochs, schedules. A task draws as many demonstrations as are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from textgym import Prompt, Task, TextTokenizer
from textgym.task import check_room, encode_prompt
from textgym_agents.losses import masked_mean
from textgym_agents.model import ActorCritic


def warm_up(
    model: ActorCritic,
    task: Task,
    *,
    steps: int,
    batch: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
    callback: Callable[[int, float], None] | None = None,
) -> float:
    """Maximise the likelihood of the task's demonstrations, each closed by end-of-text (or by the stop string in it).

    Args:
        model: learns; its value head is left alone.
        task: gives ``demonstrations(rng, count)``.
        steps: optimizer steps, with a learning rate that falls linearly to 0.
        batch: demonstrations per step.
        learning_rate: of AdamW, at the start.
        seed: of the demonstrations drawn.
        callback: called with the step and its loss.

    Returns:
        The last step's loss, in nats per response token.

    Raises:
        ValueError: the task has no demonstrations, or one does not fit.
    """
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.lm.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-2, total_iters=max(1, steps))
    loss = torch.tensor(float("nan"))
    for step in range(steps):
        examples = task.demonstrations(rng, batch)
        if not examples:
            raise ValueError(f"{type(task).__name__} has no demonstrations to warm up on; set the warm-up steps to 0")
        ids, prompt_lengths, mask = (tensor.to(model.lm.device) for tensor in _batch(examples, model.tokenizer, task))
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


def _batch(
    examples: Sequence[tuple[Prompt, str]], tokenizer: TextTokenizer, task: Task
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, prompt_lengths, lengths = [], [], []
    for prompt, text in examples:
        encoded = encode_prompt(prompt, tokenizer)
        check_room(encoded, task.max_prompt_tokens, "demonstration prompt")
        response = tokenizer.encode(text)
        if not any(stop in text for stop in task.stop):  # a stop string has ended the text already
            response = np.append(response, tokenizer.eos_token_id)
        if len(response) > task.max_new_tokens:
            raise ValueError(
                f"demonstration has {len(response)} tokens with its end but max_new_tokens is {task.max_new_tokens}: {text!r}"
            )
        rows.append(torch.from_numpy(np.concatenate([np.asarray(encoded.ids), response])))
        prompt_lengths.append(len(rows[-1]) - len(response))
        lengths.append(len(response))
    ids = pad_sequence(rows, batch_first=True)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids, torch.tensor(prompt_lengths), mask
