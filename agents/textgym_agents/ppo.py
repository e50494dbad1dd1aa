"""PPO over token rewards: collect, reward, advantages, minibatches, loss.

Left out on purpose: the environment, the model and the run folder, which are handed in or belong to ``train``. The loop
below is the documentation of the algorithm.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from accelerate import Accelerator
from torch import Tensor

from textgym.rules import Rules
from textgym_agents.collector import collect
from textgym_agents.losses import (
    explained_variance,
    kl_penalty,
    masked_mean,
    moments,
    ppo_policy_loss,
    value_loss,
    whiten,
)
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.returns import stream_gae
from textgym_agents.rollout import Rollout

Callback = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class PPOConfig:
    """What PPO can be told; every field is an option of ``textgym train``."""

    episodes_per_update: int = 256
    """Episodes that each process collects before it learns from them."""
    epochs: int = 4
    """Passes over each collection."""
    minibatch_episodes: int = 64
    """Episodes per optimizer step and process."""
    learning_rate: float = 4e-4
    """Step size of AdamW, at the start."""
    anneal: bool = True
    """Let the learning rate fall linearly to 0 over the budget."""
    gamma: float = 1.0
    """Discount per agent token of a stream."""
    gae_lambda: float = 1.0
    """1: advantages are the stream's own reward-to-go minus V, unbiased. Below 1, a critic that lags adds bias."""
    clip_coef: float = 0.2
    """Half width of the range in which the probability ratio is trusted."""
    value_clip: float | None = None
    """Half width of the range in which the value may move per update; None: free."""
    value_coef: float = 0.1
    """Weight of the value loss. It reaches the language model through the shared trunk: .5 was seen to wreck the form of
    the texts within ten updates where returns are not centred at 0."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    kl_coef: float = 0.0
    """Weight of the per-token KL penalty to the frozen reference, as a reward; 0: no reference is kept."""
    target_kl: float | None = None
    """Stop the epochs of an update once the policy has moved this far from the one that sampled; None: never."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and deviation 1 over the agent's tokens of the collection (of all processes)."""

    def __post_init__(self) -> None:
        for name in ("episodes_per_update", "epochs", "minibatch_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("learning_rate", "clip_coef", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("value_coef", "entropy_coef", "kl_coef"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("value_clip", "target_kl"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0, or None")


class PPO:
    """Proximal policy optimisation of a causal language model, with returns that stay inside their streams.

    Args:
        policy: the policy to improve; the reference is a frozen copy of its model as it is now.
        config: see ``PPOConfig``.
        accelerator: default: ``accelerate``'s own choice for the policy's device; ``accelerate launch`` scales out.
        seed: of the order of minibatches.
    """

    def __init__(
        self,
        policy: CausalLMPolicy,
        config: PPOConfig | None = None,
        *,
        accelerator: Accelerator | None = None,
        seed: int = 0,
    ) -> None:
        self.policy = policy
        self.config = config or PPOConfig()
        self.accelerator = accelerator or Accelerator(cpu=policy.device.type == "cpu")
        self.reference = policy.model.frozen_reference() if self.config.kl_coef else None
        optimizer = torch.optim.AdamW(policy.model.parameters(), lr=self.config.learning_rate, weight_decay=0.0, eps=1e-5)
        self.model, self.optimizer = self.accelerator.prepare(policy.model, optimizer)
        self._shuffle = torch.Generator().manual_seed(seed)

    def learn(self, envs: gym.vector.VectorEnv[Any, Any, Any], budget: int, callback: Callback | None = None) -> None:
        """Learn from ``budget`` episodes (per process), rounded down to whole updates.

        Args:
            envs: a textgym vector environment, as ``collect`` wants it.
            budget: episodes.
            callback: called after each update with its figures.
        """
        _check_streams(envs, self.config.gae_lambda)
        updates = budget // self.config.episodes_per_update
        if updates == 0:
            raise ValueError(f"budget is {budget} episodes, less than one update of {self.config.episodes_per_update}")
        for update in range(updates):
            if self.config.anneal:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.config.learning_rate * (1 - update / updates)
            figures = self.update(envs)
            if callback is not None:
                callback({"update": update + 1, "episodes": (update + 1) * self.config.episodes_per_update, **figures})

    def update(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> dict[str, float]:
        """Play one collection and learn from it. Returns the update's figures."""
        config = self.config
        start = time.perf_counter()
        # 1) collect: play, and read what was released
        rollout = collect(envs, self.policy, config.episodes_per_update)
        collected = time.perf_counter()
        # 2) reward: what was released, and the price of leaving the reference, in the token's own stream
        rollout = self._with_reference(rollout)
        rewards = rollout.token_rewards
        if rollout.ref_logprobs is not None:
            rewards = rewards + kl_penalty(rollout.logprobs, rollout.ref_logprobs, rollout.agent_mask, config.kl_coef)
        accounts = _accounts(rollout, rewards)
        # 3) advantages: inside each stream
        advantages, returns = stream_gae(
            rewards,
            rollout.values,
            rollout.streams,
            rollout.agent_mask,
            rollout.final_values,
            rollout.truncated,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        if config.whiten_advantages:
            totals = self._reduce(moments(advantages, rollout.agent_mask), "sum")
            advantages = whiten(advantages, rollout.agent_mask, totals)
        # 4) minibatches: whole episodes, shuffled anew in every epoch
        steps: list[dict[str, float]] = []
        for rows in self._minibatches(len(rollout)):
            steps.append(self._step(rollout, rows, advantages, returns))
            if config.target_kl is not None and self._moved(steps[-1]) > config.target_kl:
                break
        figures = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        explained = explained_variance(rollout.values, returns, rollout.agent_mask)
        seconds = {"collect_seconds": collected - start, "update_seconds": time.perf_counter() - collected}
        return {**_summary(rollout), **accounts, **figures, "explained_variance": explained, **seconds}

    def save(self, folder: str | Path) -> None:
        """Write the policy: an ordinary causal language model with its tokenizer, and the value head beside it."""
        self.policy.model.save(folder)

    def load(self, folder: str | Path) -> None:
        """Read the policy that ``save`` wrote."""
        self.policy.model.load(folder)

    def _step(self, rollout: Rollout, rows: Tensor, advantages: Tensor, returns: Tensor) -> dict[str, float]:
        """Take one optimizer step on the episodes ``rows``."""
        config = self.config
        width = int(rollout.num_tokens[rows].max())
        length = int((rollout.prompt_lengths + rollout.num_tokens)[rows].max())
        mask = rollout.agent_mask[rows, :width]
        # 5) loss
        logprobs, values, entropy = self.model(
            rollout.ids[rows, :length], rollout.prompt_lengths[rows], mask, self.policy.temperature
        )
        policy = ppo_policy_loss(logprobs, rollout.logprobs[rows, :width], advantages[rows, :width], mask, config.clip_coef)
        value = value_loss(values, rollout.values[rows, :width], returns[rows, :width], mask, config.value_clip)
        mean_entropy = masked_mean(entropy, mask)
        loss = policy.loss + config.value_coef * value - config.entropy_coef * mean_entropy
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} (policy {policy.loss.item()}, value {value.item()}) on episodes "
                f"{rollout.episode_id[rows].tolist()}; no weight was changed by it"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        if norm is not None and not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient's norm is {float(norm)} on episodes {rollout.episode_id[rows].tolist()}; no weight changed"
            )
        self.optimizer.step()
        return {
            "policy_loss": policy.loss.item(),
            "value_loss": value.item(),
            "entropy": mean_entropy.item(),
            "approx_kl": policy.approx_kl.item(),
            "clip_fraction": policy.clip_fraction.item(),
        }

    def _minibatches(self, episodes: int) -> Iterator[Tensor]:
        for _ in range(self.config.epochs):
            order = torch.randperm(episodes, generator=self._shuffle).to(self.policy.device)
            yield from order.split(self.config.minibatch_episodes)

    @torch.no_grad()
    def _with_reference(self, rollout: Rollout) -> Rollout:
        if self.reference is None:
            return rollout
        logprobs = torch.zeros_like(rollout.logprobs)
        for rows in torch.arange(len(rollout), device=logprobs.device).split(self.config.minibatch_episodes):
            logprobs[rows] = self.reference(
                rollout.ids[rows], rollout.prompt_lengths[rows], rollout.agent_mask[rows], self.policy.temperature
            )[0]
        return replace(rollout, ref_logprobs=logprobs)

    def _moved(self, step: Mapping[str, float]) -> float:
        """Give the step's KL averaged over processes, so that all of them stop together."""
        return float(self._reduce(torch.tensor(step["approx_kl"], device=self.policy.device), "mean"))

    def _reduce(self, tensor: Tensor, how: str) -> Tensor:
        reduced = self.accelerator.reduce(tensor, how)
        assert isinstance(reduced, Tensor)
        return reduced


def _summary(rollout: Rollout) -> dict[str, float]:
    figures = {
        "return": float(rollout.token_rewards.sum(1).mean()),
        "success": float(rollout.is_success.float().mean()),
        "tokens": float(rollout.num_tokens.float().mean()),
        "truncated": float(rollout.truncated.float().mean()),
    }
    if rollout.ref_logprobs is not None:
        figures["ref_kl"] = float((rollout.logprobs - rollout.ref_logprobs).sum(1).mean())
    return figures


def _accounts(rollout: Rollout, rewards: Tensor) -> dict[str, float]:
    """Give the collection's ledger, means per episode: what the task asked for, what each stage took, what is learned from.

    Raises:
        ValueError: it does not add up.
    """
    released, learned = (float(table.double().sum()) / len(rollout) for table in (rollout.token_rewards, rewards))
    ledger = rollout.ledger if rollout.ref_logprobs is None else rollout.ledger.take("kl", released - learned)
    size = float(rollout.token_rewards.double().abs().sum() + rewards.double().abs().sum()) / len(rollout)
    ledger.check(learned, size + sum(abs(amount) for amount in ledger.accounts.values()), "the collection")
    taken = {f"ledger/{name}": amount for name, amount in ledger.accounts.items()}
    return {"ledger_asked": ledger.asked, **taken, "ledger_learned": learned}


def _check_streams(envs: gym.vector.VectorEnv[Any, Any, Any], gae_lambda: float) -> None:
    rules = getattr(envs.unwrapped, "rules", None)
    if isinstance(rules, Rules) and not rules.task.causal_streams and gae_lambda != 1:
        warnings.warn(
            f"the task's streams are not causal and gae_lambda is {gae_lambda}: the successor of a token is chosen by "
            "hindsight, which is unbiased only at gae_lambda = 1",
            stacklevel=3,
        )
