"""The update alone: what PPO does with a collection, against the plain way, in samples per second and in memory.

Left out on purpose: rollouts; both learn from episodes of the same load. The plain way is what most code does: a minibatch is
padded to its longest text, the logits of every position are computed in float32, and one number of each row is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from textgym_agents.bench.contestants import ForcedLengths, make_envs
from textgym_agents.bench.load import Load
from textgym_agents.collector import collect
from textgym_agents.model import ActorCritic
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.rollout import Rollout


class OurUpdate:
    """``PPO.update`` without its collection: the seconds that it says its update took."""

    def __init__(self, model: ActorCritic, load: Load, slots: int, minibatch: int, seed: int) -> None:
        self.load = load
        self.envs = make_envs(load, slots, seed)
        config = PPOConfig(episodes_per_update=len(load.prompts), epochs=1, minibatch_episodes=minibatch, learning_rate=1e-6)
        self.ppo = PPO(ForcedLengths(model, slots, load, seed=seed), config)

    def run(self) -> tuple[float, float]:
        """Collect and learn once. Returns samples learned from, and the seconds of that."""
        self.load.handed_out = 0
        figures = self.ppo.update(self.envs)
        return len(self.load.prompts), figures["update_seconds"]

    def close(self) -> None:
        """Nothing to let go of."""


class PaddedUpdate:
    """The plain way, with the same optimizer, clipping and number of steps."""

    def __init__(self, model: ActorCritic, load: Load, slots: int, minibatch: int, seed: int) -> None:
        self.model, self.minibatch = model, minibatch
        load.handed_out = 0
        self.rollout = collect(make_envs(load, slots, seed), ForcedLengths(model, slots, load, seed=seed), len(load.prompts))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, eps=1e-5)
        self.shuffle = torch.Generator().manual_seed(seed)
        self.advantages = torch.randn(self.rollout.logprobs.shape, generator=self.shuffle)

    def run(self) -> tuple[float, float]:
        """Take one pass over the episodes, a step per minibatch. Returns samples and seconds."""
        start = time.perf_counter()
        for rows in torch.randperm(len(self.rollout), generator=self.shuffle).split(self.minibatch):
            loss = padded_loss(self.model, self.rollout, rows, self.advantages)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return len(self.rollout), time.perf_counter() - start

    def close(self) -> None:
        """Nothing to let go of."""


def padded_loss(model: ActorCritic, rollout: Rollout, rows: Tensor, advantages: Tensor) -> Tensor:
    """Give PPO's clipped policy loss and 0.1 of the value loss, through logits (B, L, V) of every position in float32."""
    width = int(rollout.num_tokens[rows].max())
    length = int((rollout.prompt_lengths + rollout.num_tokens)[rows].max())
    ids, mask = rollout.ids[rows, :length], rollout.agent_mask[rows, :width]
    hidden = model.hidden(ids, torch.arange(length).expand_as(ids))
    table = model.logits(hidden).log_softmax(-1)
    # What was predicted at place p is token p + 1; response token t stands at place prompt_length + t.
    chosen = table[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    places = (rollout.prompt_lengths[rows, None] - 1 + torch.arange(width)).clamp(max=length - 2)
    logprobs, values = chosen.gather(1, places), model.values(hidden).gather(1, places)
    ratio = (logprobs - rollout.logprobs[rows, :width])[mask].exp()
    advantage = advantages[rows, :width][mask]
    policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    return policy + 0.1 * (values[mask] - advantage).square().mean()


def peak_memory(work: Callable[[], object]) -> int:
    """Give the most bytes that tensors held at once during ``work``, above what they held before.

    Counted from the allocator's own records, so it is the same on every run; scratch memory that a matrix library takes for
    itself is not in it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    held = peak = 0
    assert record.profiler is not None and record.profiler.kineto_results is not None
    for event in sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
            peak = max(peak, held)
    return peak
