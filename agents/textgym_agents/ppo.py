"""PPO over token rewards: collect, reward, advantages, minibatches, loss.

Left out on purpose: the environment, the model and the run folder, which are handed in or belong to ``train``. The loop
below is the documentation of the algorithm.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn

from textgym.ledger import Ledger
from textgym.rules import Rules
from textgym_agents.checkpoint import load_learning, save_learning, write_whole
from textgym_agents.checkpointing import checkpoint_layers
from textgym_agents.collector import Collector
from textgym_agents.constant_total import assigner_of, warn_constant_total, warn_credit
from textgym_agents.figures import accounts, summary
from textgym_agents.kl import adapt_kl_coef, kl_loss, kl_penalty
from textgym_agents.losses import explained_variance, importance_weights, masked_mean, ppo_policy_loss, value_loss
from textgym_agents.minibatch import Passes, Targets, minibatches
from textgym_agents.normalise import RewardScale, moments, return_moments, scale_rewards, whiten
from textgym_agents.packing import MicroBatch, packs_exactly
from textgym_agents.policy import CausalLMPolicy
from textgym_agents.ppo_config import PPOConfig
from textgym_agents.returns import stream_gae, whole_stream_returns
from textgym_agents.rollout import Rollout

__all__ = ["PPO", "PPOConfig"]

Callback = Callable[[Mapping[str, float]], None]


class PPO:
    """Proximal policy optimisation of a causal language model, with returns that stay inside their streams.

    Args:
        policy: the policy to improve; the reference is a frozen copy of its model as it is now, or, with adapters, the model
            without them.
        config: see ``PPOConfig``.
        accelerator: default: ``accelerate``'s own choice for the policy's device, but its environment switches on neither mixed
            precision (``config.precision`` does) nor accumulation of gradients; ``accelerate launch`` scales out.
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
        self.accelerator = accelerator or _accelerator(cpu=policy.device.type == "cpu")
        together = self.config.episodes_per_update * self.accelerator.num_processes
        if self.config.kl_target is not None and not self.config.kl_horizon > 0.2 * together:
            raise ValueError(
                f"kl_horizon is {self.config.kl_horizon}; it must be above a fifth of the {together} episodes that the "
                f"{self.accelerator.num_processes} processes collect per update"
            )
        self.kl_coef = self.config.kl_coef
        self.reward_scale = RewardScale()
        self.reference = policy.model.frozen_reference() if self.config.kl_coef else None
        if self.config.gradient_checkpointing:
            checkpoint_layers(policy.model)
        how = self.config.packing
        if how == "auto":
            how = "packed" if packs_exactly(policy.model) else "sorted"
        self.passes = Passes(how, self.config.microbatch_tokens, policy.temperature)
        optimizer = torch.optim.AdamW(
            policy.model.parameters(), lr=self.config.learning_rate, weight_decay=0.0, eps=1e-5, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(policy.model, optimizer)
        self._training_pass = torch.compile(self.model, dynamic=True) if self.config.compile else self.model
        self._collector: Collector | None = None
        self._shuffle = torch.Generator().manual_seed(seed)
        self._progress = {"update": 0, "learned": 0}  # where `learn` stands; a resumed one starts there

    def learn(self, envs: gym.vector.VectorEnv[Any, Any, Any], budget: int, callback: Callback | None = None) -> None:
        """Learn from ``budget`` episodes (per process), rounded down to whole updates.

        Args:
            envs: a textgym vector environment, as ``collect`` wants it.
            budget: episodes.
            callback: called after each update with its figures, of which ``episodes`` is how many were learned from so far: not
                quite what the budget says, where episodes are carried over or dropped.
        """
        _check_streams(envs, self.config.gae_lambda)
        updates = budget // self.config.episodes_per_update
        if updates == 0:
            raise ValueError(f"budget is {budget} episodes, less than one update of {self.config.episodes_per_update}")
        learned = self._progress["learned"]
        for update in range(self._progress["update"], updates):
            if self.config.anneal:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.config.learning_rate * (1 - update / updates)
            figures = self.update(envs)
            learned += int(figures["episodes"])
            self._progress = {"update": update + 1, "learned": learned}
            if callback is not None:
                callback({"update": update + 1, **figures, "episodes": learned})
        self._progress = {"update": 0, "learned": 0}

    def update(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> dict[str, float]:
        """Play one collection and learn from it. Returns the update's figures."""
        config = self.config
        start = time.perf_counter()
        # 1) collect: play, and read what was released
        rollout = self._collector_of(envs).collect(config.episodes_per_update)
        collected = time.perf_counter()
        if self._progress["update"] == rollout.version == 0:  # later it may be that the task is solved
            warn_constant_total(rollout)
        warn_credit(assigner_of(envs), rollout, reward_to_go=config.credit == "reward_to_go")
        rollout, weights = self._as_evaluated(rollout)
        # 2) reward: what was released, and the price of leaving the reference, in the token's own stream
        rollout = self._with_reference(rollout)
        rewards, ledger = self._rewards(rollout)
        ledgered = accounts(ledger, rollout, rewards)
        # 3) advantages: inside each stream
        tables = rewards, rollout.values, rollout.streams, rollout.agent_mask, rollout.final_values, rollout.truncated
        if config.credit == "whole_stream":
            advantages, returns = whole_stream_returns(*tables)
        else:
            advantages, returns = stream_gae(*tables, gamma=config.gamma, gae_lambda=config.gae_lambda)
        if config.whiten_advantages:
            totals = self._reduce(moments(advantages, rollout.agent_mask), "sum")
            advantages = whiten(advantages, rollout.agent_mask, totals)
        # 4) minibatches: whole episodes, shuffled anew in every epoch
        targets = Targets(advantages, returns, weights)
        steps: list[dict[str, float]] = []
        for episodes in minibatches(
            len(rollout), config.minibatch_episodes, config.epochs, config.episodes_per_update, self._shuffle
        ):
            steps.append(self._step(rollout, episodes.to(self.policy.device), targets))
            if config.target_kl is not None and self._moved(steps[-1]) > config.target_kl:
                break
        figures = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        explained = explained_variance(rollout.values, returns, rollout.agent_mask)
        figures |= {**summary(rollout), **ledgered, **self._adapt(rollout), "explained_variance": explained}
        if weights is not None:
            figures["importance_weight"] = float(masked_mean(weights, rollout.agent_mask))
        return {**figures, "collect_seconds": collected - start, "update_seconds": time.perf_counter() - collected}

    def save(self, folder: str | Path) -> None:
        """Write the policy: an ordinary causal language model with its tokenizer, and the value head beside it.

        Whatever cuts it off, the policy that was there before is still there.
        """
        write_whole(Path(folder), self.policy.model.save)

    def load(self, folder: str | Path) -> None:
        """Read the policy that ``save`` wrote."""
        self.policy.model.load(folder)

    def save_state(self, folder: str | Path) -> None:
        """Write what a resumed ``learn`` needs, between two updates; texts that are carried over are not part of it."""
        scale = asdict(self.reward_scale)
        numbers = {"progress": self._progress, "kl_coef": self.kl_coef, "reward_scale": scale}
        save_learning(folder, self.policy.model, self.optimizer, self._generators, numbers, self._frozen)

    def load_state(self, folder: str | Path) -> None:
        """Read what ``save_state`` wrote; the next ``learn`` goes on there."""
        numbers = load_learning(folder, self.policy.model, self.optimizer, self._generators, self._frozen)
        self._progress, self.kl_coef = numbers["progress"], numbers["kl_coef"]
        self.reward_scale = RewardScale(**numbers["reward_scale"])
        if self.config.carry_over:
            warnings.warn("texts that were being carried over when the state was saved are begun anew", stacklevel=2)

    @property
    def _generators(self) -> dict[str, torch.Generator]:
        return {"policy": self.policy.generator, "shuffle": self._shuffle}

    @property
    def _frozen(self) -> nn.Module | None:
        """The reference where it has weights of its own: not where it is the model with its adapters off."""
        return self.reference if isinstance(self.reference, nn.Module) else None

    def _collector_of(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> Collector:
        """Give the one collector of an environment: it knows what is carried over."""
        if self._collector is None or self._collector.envs is not envs:
            options = {"carry_over": self.config.carry_over, "max_staleness": self.config.max_staleness}
            self._collector = Collector(envs, self.policy, **options)
        return self._collector

    def _step(self, rollout: Rollout, episodes: Tensor, targets: Targets) -> dict[str, float]:
        """Take one optimizer step on the rows ``episodes``, pass by pass."""
        self.optimizer.zero_grad(set_to_none=True)
        # All passes divide by the minibatch's tokens, and processes by their mean, so that every token weighs the same.
        count = self._reduce(rollout.agent_mask[episodes].sum().float(), "mean")
        parts = self.passes.divide(rollout, episodes)
        figures: dict[str, float] = {}
        for number, part in enumerate(parts, 1):
            # Processes meet in the last pass only, however many each of them takes.
            with nullcontext() if number == len(parts) else self.accelerator.no_sync(self.model):
                loss, terms = self._loss(rollout, part, targets, count)
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss is {loss.item()} ({', '.join(f'{name} {value:g}' for name, value in terms.items())}) on "
                        f"episodes {rollout.episode_id[part.texts].tolist()}; no weight was changed by it"
                    )
                self.accelerator.backward(loss)
            figures = {name: figures.get(name, 0.0) + value for name, value in terms.items()}
        for parameters in self._clipped_together():
            norm = self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm)
            if norm is not None and not torch.isfinite(norm):
                raise FloatingPointError(
                    f"the gradient's norm is {float(norm)} on episodes {rollout.episode_id[episodes].tolist()}; no weight was "
                    "changed by it"
                )
        self.optimizer.step()
        return figures

    def _clipped_together(self) -> list[list[nn.Parameter]]:
        """Give the parameters whose gradients are clipped by one norm: all, or those of the policy and of the values apart."""
        model = self.policy.model
        if model.value_lm is None:
            return [list(self.model.parameters())]
        return [list(model.lm.parameters()), [*model.value_lm.parameters(), *model.value_head.parameters()]]

    def _loss(self, rollout: Rollout, part: MicroBatch, targets: Targets, count: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Give the loss of one pass and its terms, as shares of the minibatch's."""
        config, width = self.config, self.passes.width(rollout, part)

        def cut(table: Tensor) -> Tensor:
            return table[part.texts, :width]

        with self._autocast():
            logprobs, values, entropies = self.passes.run(self._training_pass, rollout, part)
        # 5) loss
        mask, (low, high) = cut(rollout.agent_mask), config.clip_range
        policy = ppo_policy_loss(
            logprobs,
            cut(rollout.logprobs),
            cut(targets.advantages),
            mask,
            clip_low=low,
            clip_high=high,
            dual_clip=config.dual_clip,
            weights=None if targets.weights is None else cut(targets.weights),
            count=count,
        )
        value = value_loss(values, cut(rollout.values), cut(targets.returns), mask, config.value_clip, count)
        entropy = masked_mean(entropies, mask, count)
        loss = policy.loss + config.value_coef * value
        if config.entropy_coef:
            loss = loss - config.entropy_coef * entropy
        terms = {
            "policy_loss": policy.loss,
            "value_loss": value,
            "entropy": entropy,
            "approx_kl": policy.approx_kl,
            "clip_fraction": policy.clip_fraction,
        }
        if config.dual_clip is not None:
            terms["dual_clip_fraction"] = policy.dual_clip_fraction
        if rollout.ref_logprobs is not None and config.kl_in == "loss":
            terms["kl_loss"] = kl_loss(logprobs, cut(rollout.ref_logprobs), mask, config.kl_estimator, count)
            loss = loss + self.kl_coef * terms["kl_loss"]
        return loss, dict(zip(terms, torch.stack([term.detach() for term in terms.values()]).tolist(), strict=True))

    def _as_evaluated(self, rollout: Rollout) -> tuple[Rollout, Tensor | None]:
        """Give log-probs and values as the policy stands and is evaluated, and how much each token then counts.

        That is what was sampled, unless an older policy did, or the distribution was cut (top-k, top-p), or training runs in
        another precision. Then the clip range is laid around the policy as it stands (decoupled PPO), and tokens are weighted.
        A value model of its own has not seen the texts yet.
        """
        if self.policy.model.value_lm is not None:
            with self._autocast():
                found = self.passes.values(self.policy.model, rollout, self.config.minibatch_episodes)
            rollout = replace(rollout, values=found[0], final_values=found[1])
        fresh = bool((rollout.policy_version == rollout.version)[rollout.agent_mask].all())
        if fresh and not self.policy.sampling.truncates and self.config.precision == "float32":
            return rollout, None
        logprobs, values = self._evaluate(self.policy.model, rollout)
        weights = importance_weights(logprobs, rollout.logprobs, rollout.agent_mask, self.config.importance_cap)
        return replace(rollout, logprobs=logprobs, values=values), weights

    def _with_reference(self, rollout: Rollout) -> Rollout:
        if self.reference is None:
            return rollout
        return replace(rollout, ref_logprobs=self._evaluate(self.reference, rollout)[0])

    def _evaluate(self, model: Any, rollout: Rollout) -> tuple[Tensor, Tensor]:
        with self._autocast():
            return self.passes.evaluate(model, rollout, self.config.minibatch_episodes)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _rewards(self, rollout: Rollout) -> tuple[Tensor, Ledger]:
        """Give the rewards to learn from, float32 (E, T), and the ledger with what was done to them."""
        rewards, ledger, config = rollout.token_rewards, rollout.ledger, self.config
        if config.scale_rewards:
            totals = self._reduce(return_moments(rewards, rollout.streams, rollout.agent_mask), "sum")
            self.reward_scale = self.reward_scale.update(totals)
            rewards, taken = scale_rewards(rewards, rollout.agent_mask, self.reward_scale)
            ledger = ledger.take("scale", float(taken.mean()))
        if rollout.ref_logprobs is not None and config.kl_in == "reward":
            penalty = kl_penalty(rollout.logprobs, rollout.ref_logprobs, rollout.agent_mask, self.kl_coef, config.kl_estimator)
            rewards = rewards + penalty
            ledger = ledger.take("kl", -float(penalty.double().sum()) / len(rollout))
        return rewards, ledger

    def _adapt(self, rollout: Rollout) -> dict[str, float]:
        """Let the weight of the KL follow what was measured with it. Returns the weight that this update had."""
        if rollout.ref_logprobs is None:
            return {}
        used, target = self.kl_coef, self.config.kl_target
        if target is not None:
            kl = self._reduce((rollout.logprobs - rollout.ref_logprobs).double().sum(1).mean(), "mean")
            episodes = self.config.episodes_per_update * self.accelerator.num_processes
            self.kl_coef = adapt_kl_coef(used, float(kl), target=target, episodes=episodes, horizon=self.config.kl_horizon)
        return {"kl_coef": used}

    def _moved(self, step: Mapping[str, float]) -> float:
        """Give the step's KL averaged over processes, so that all of them stop together."""
        return float(self._reduce(torch.tensor(step["approx_kl"], device=self.policy.device), "mean"))

    def _reduce(self, tensor: Tensor, how: str) -> Tensor:
        reduced = self.accelerator.reduce(tensor, how)
        assert isinstance(reduced, Tensor)
        return reduced


def _accelerator(cpu: bool) -> Accelerator:
    # Said here, since both would be read off the environment: precision and passes are the config's.
    return Accelerator(cpu=cpu, mixed_precision="no", gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1))


def _check_streams(envs: gym.vector.VectorEnv[Any, Any, Any], gae_lambda: float) -> None:
    rules = getattr(envs.unwrapped, "rules", None)
    if isinstance(rules, Rules) and not rules.task.causal_streams and gae_lambda != 1:
        warnings.warn(
            f"the task's streams are not causal and gae_lambda is {gae_lambda}: the successor of a token is chosen by "
            "hindsight, which is unbiased only at gae_lambda = 1",
            stacklevel=3,
        )
