"""Implicit language Q-learning with streams: off-policy, from a replay buffer of released episodes.

Left out on purpose: large vocabularies (Q of all V tokens at each of a minibatch's tokens is held at once), and resuming (the
buffer is not written).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from textgym_agents.agent_config import at_least, check_types, in_range
from textgym_agents.checkpoint import write_whole
from textgym_agents.collector import Collector
from textgym_agents.figures import summary
from textgym_agents.learner import Learner, check_one_process, updates_of
from textgym_agents.model import ActorCritic
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.q_losses import conservative_loss, expectile_loss, q_targets
from textgym_agents.replay import Batch, Replay


@dataclass(frozen=True)
class ILQLConfig:
    """What ILQL can be told."""

    episodes_per_update: int = 256
    """Episodes that are played and put into the buffer, before each round of steps."""
    steps_per_update: int = 16
    """Optimizer steps of a round."""
    minibatch_episodes: int = 64
    """Episodes per step, drawn from the buffer."""
    capacity: int = 4096
    """Episodes that the buffer holds."""
    beta: float = 4.0
    """How far the policy leans towards what Q prefers; 0: pi_beta itself."""
    expectile: float = 0.7
    """Of V over Q, in (0, 1); above .5 it looks for the better of what the data holds."""
    gamma: float = 1.0
    """Discount per agent token of a stream."""
    cql_coef: float = 0.01
    """Weight of the conservative term."""
    clone_coef: float = 1.0
    """Weight of pi_beta's likelihood of the buffer's texts."""
    target_rate: float = 0.05
    """Share of the Q heads that goes into their slow copies per step."""
    learning_rate: float = 1e-3
    """Step size of AdamW, at the start; it falls linearly to 0 over the budget."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "episodes_per_update", "steps_per_update", "minibatch_episodes", "capacity")
        at_least(self, 0, "beta", "cql_coef", "clone_coef")
        in_range(self, "expectile", above=0, most=0.999)
        in_range(self, "gamma", "target_rate", above=0, most=1)
        in_range(self, "learning_rate", above=0)
        in_range(self, "max_grad_norm", above=0, most=math.inf)


class QModel(ActorCritic):
    """A language model with V, two Q heads and their slow copies; its logits are those of the policy.

    logits = log pi_beta + beta (min_i Q_i^slow - V), pi_beta being the language model.

    Args:
        base: whose language model, tokenizer and context it shares.
        beta: of the policy.
        seed: of the Q heads' first layers.
    """

    beta: float = 0.0  # until the heads are there: the probe at construction sees the language model's own logits

    def __init__(self, base: ActorCritic, beta: float, seed: int = 0) -> None:
        if base.value_lm is not None:
            raise ValueError("ILQL reads V off the language model's own states; leave out the separate value model")
        super().__init__(base.lm, base.tokenizer, base.context_length)
        device, size = base.lm.device, self.policy_size
        with torch.random.fork_rng(devices=[]):  # the first layers are drawn; the last ones start at 0
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(_head(size, self.vocab_size).to(device) for _ in range(2))
        self.slow_heads = copy.deepcopy(self.heads).requires_grad_(False)
        self.beta = beta

    def logits(self, hidden: Tensor, head: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Give the policy's logits. (..., hidden) -> (..., V), float32."""
        logits = super().logits(hidden, head)
        if self.beta == 0:
            return logits
        lean = self.q(self.slow_heads, hidden).amin(0) - self.values(hidden)[..., None]
        return logits.log_softmax(-1) + self.beta * lean

    def q(self, heads: nn.ModuleList, hidden: Tensor) -> Tensor:
        """Give Q of every token by each of two heads. (..., hidden) -> (2, ..., V), float32."""
        return torch.stack([head(hidden.float()) for head in heads])

    def states(self, batch: Batch) -> Tensor:
        """Give the state before each agent token of a batch, float (K, hidden)."""
        rows, columns = batch.agent_mask.nonzero(as_tuple=True)
        hidden = self.hidden(batch.ids, torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids))
        return hidden[rows, batch.prompt_lengths[rows] + columns - 1]


class ILQL:
    """Implicit language Q-learning (Snell et al., 2023), inside streams, on what its own policy has written so far.

    On tokens drawn from the buffer, with t' the next agent token of the same stream::

        L = sum_i mean (Q_i(t) - r_t - gamma V(t'))^2 + mean L2^expectile(min_i Q_i^slow(t) - V(t))
            + cql_coef sum_i (logsumexp Q_i - Q_i(t)) - clone_coef mean log pi_beta(t)
        policy = pi_beta exp(beta (min_i Q_i^slow - V)), renormalised

    Rewards come from the buffer, where every token has what the release gave it.

    Args:
        policy: a ``CausalLMPolicy`` without a separate value model; its language model learns as pi_beta.
        config: see ``ILQLConfig``.
        seed: of minibatches and of the policy's tokens.

    Raises:
        ValueError: the policy has a separate value model, or there are several processes.
    """

    def __init__(self, policy: CausalLMPolicy, config: ILQLConfig | None = None, *, seed: int = 0) -> None:
        self.config = config or ILQLConfig()
        self.model = QModel(policy.model, self.config.beta, seed)
        sampling = {"temperature": policy.temperature, "top_k": policy.sampling.top_k, "top_p": policy.sampling.top_p}
        self.policy = CausalLMPolicy(self.model, policy.num_slots, seed=seed, **sampling)
        self.replay = Replay(self.config.capacity, seed)
        modules = [self.model.lm, self.model.value_head, self.model.heads]
        rate, norm = self.config.learning_rate, self.config.max_grad_norm
        self.learner = Learner(self.policy, learning_rate=rate, max_grad_norm=norm, modules=modules)
        check_one_process(self, "each has a replay buffer of its own, and their weights would part")

    def learn(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        budget: int,
        callback: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Play ``budget`` episodes (per process), rounded down to whole updates; ``callback`` hears of each."""
        config = self.config
        updates, collector = updates_of(budget, config.episodes_per_update), Collector(envs, self.policy)
        for update in range(updates):
            self.learner.anneal(update / updates)
            rollout = collector.collect(config.episodes_per_update)
            self.replay.add(rollout)
            steps = [self.step(self.replay.sample(config.minibatch_episodes)) for _ in range(config.steps_per_update)]
            figures = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            if callback is not None:
                episodes = (update + 1) * config.episodes_per_update
                callback({"update": update + 1, **summary(rollout), **figures, "episodes": episodes})

    def step(self, batch: Batch) -> dict[str, float]:
        """Take one optimizer step. Returns the terms of the loss."""
        config, model, mask = self.config, self.model, batch.agent_mask
        tokens = _tokens(batch)
        states = model.states(batch)
        values = model.values(states)
        table = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values.detach())
        targets = q_targets(batch.token_rewards, table, batch.streams, mask, batch.final_values, batch.truncated, config.gamma)[
            mask
        ]
        q = model.q(model.heads, states)
        with torch.no_grad():
            slow = model.q(model.slow_heads, states).amin(0).gather(1, tokens[:, None]).squeeze(1)
        written = q.gather(2, tokens.expand(2, -1)[..., None]).squeeze(2)
        terms = {
            "q_loss": (written - targets).square().mean(1).sum(),
            "value_loss": expectile_loss(values, slow, config.expectile),
            "cql_loss": conservative_loss(q[0], tokens) + conservative_loss(q[1], tokens),
            "clone_loss": torch.nn.functional.cross_entropy(ActorCritic.logits(model, states), tokens),
        }
        loss = terms["q_loss"] + terms["value_loss"] + config.cql_coef * terms["cql_loss"]
        loss = loss + config.clone_coef * terms["clone_loss"]
        self.learner.optimizer.zero_grad(set_to_none=True)
        self.learner.backward(loss, batch.episode_id)
        self.learner.finish(batch.episode_id)
        with torch.no_grad():
            for slow_weight, weight in zip(model.slow_heads.parameters(), model.heads.parameters(), strict=True):
                slow_weight.lerp_(weight, config.target_rate)
        return {name: float(term.detach()) for name, term in terms.items()}

    def save(self, folder: str | Path) -> None:
        """Write pi_beta and V (see ``ActorCritic.save``), and the Q heads beside them."""
        write_whole(Path(folder), self._write)

    def _write(self, folder: Path) -> None:
        self.model.save(folder)
        save_model(nn.ModuleList([self.model.heads, self.model.slow_heads]), str(folder / "q_heads.safetensors"))

    def load(self, folder: str | Path) -> None:
        """Read what ``save`` wrote."""
        self.model.load(folder)
        load_model(nn.ModuleList([self.model.heads, self.model.slow_heads]), str(Path(folder) / "q_heads.safetensors"))


def _head(size: int, vocab_size: int) -> nn.Sequential:
    last = nn.Linear(2 * size, vocab_size)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), last)


def _tokens(batch: Batch) -> Tensor:
    """Give the agent's tokens of a batch, int64 (K,), in the order of ``QModel.states``."""
    rows, columns = batch.agent_mask.nonzero(as_tuple=True)
    return batch.ids[rows, batch.prompt_lengths[rows] + columns]
