"""The options of PPO, each documented under itself and checked at construction.

Left out on purpose: options of the run (model, task, seeds, folder), which are ``TrainConfig``'s, and of sampling, which are
the policy's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from textgym_agents.agent_config import at_least, check_types, in_range
from textgym_agents.kl import Estimator


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
    credit: Literal["reward_to_go", "whole_stream"] = "reward_to_go"
    """What a token's advantage holds of its stream's rewards: those from it on, or all. "whole_stream" repairs assigners that
    are not causal, at the price of variance, and wants gamma = gae_lambda = 1."""
    clip_coef: float = 0.2
    """How far the probability ratio is trusted to either side of 1."""
    clip_coef_high: float | None = None
    """How far it is trusted above 1, where that is not ``clip_coef``; larger lets rare tokens gain more."""
    dual_clip: float | None = None
    """Bound of the loss of a token with negative advantage A, in units of -A, above 1 (3 is usual); None: none."""
    value_clip: float | None = None
    """Half width of the range in which the value may move per update; None: free."""
    value_coef: float = 0.1
    """Weight of the value loss. It reaches the language model through the shared trunk: .5 was seen to wreck the form of
    the texts within ten updates where returns are not centred at 0."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    kl_coef: float = 0.0
    """Weight of the per-token KL to the frozen reference; 0: no reference is kept."""
    kl_in: Literal["reward", "loss"] = "reward"
    """"reward": the KL is a price in the token's own stream, which earlier tokens see too. "loss": a term of the loss."""
    kl_estimator: Estimator = "k1"
    """Of the KL at a sampled token. As a reward k1 has the right gradient; as a loss k2 has that of KL(policy || reference),
    k3 that of the other direction, and k1 has none."""
    kl_target: float | None = None
    """Let ``kl_coef`` adapt so that the KL comes near this, in nats per episode (Ziegler et al., 2019); None: it stays."""
    kl_horizon: float = 10_000.0
    """Episodes over which a KL a fifth off its target moves ``kl_coef`` by a fifth."""
    target_kl: float | None = None
    """Stop the epochs of an update once the policy has moved this far from the one that it started as; None: never."""
    max_grad_norm: float = 1.0
    """Clip the gradient's norm; a separate value model's apart from the language model's."""
    scale_rewards: bool = False
    """Divide rewards by the running root mean square of the returns of streams; booked in the ledger as "scale"."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and deviation 1 over the agent's tokens of the collection (of all processes)."""
    carry_over: bool = False
    """Carry unfinished episodes over into the next collection, so that slots do not wait for the longest text until it is
    ``max_staleness`` updates old. Its tokens are then some updates old: log-probs and values are computed again, and tokens
    weighted (``importance_cap``)."""
    max_staleness: int = 4
    """With ``carry_over``: most updates that a token may be old when it is learned from."""
    importance_cap: float = 2.0
    """Largest weight of a token that was sampled otherwise than it is evaluated: by an older policy, or from top-k or top-p."""
    packing: Literal["auto", "packed", "sorted", "padded"] = "auto"
    """How a minibatch's texts go through the model: several in a row; one in a row, beside others of about its length; one in
    a row as they come. The numbers are the same. "auto" packs where a probe finds that the model keeps the texts of a row
    apart, and sorts elsewhere."""
    microbatch_tokens: int = 2048
    """Most cells, padding included, of one pass; a minibatch that is larger takes several, and still one optimizer step."""
    gradient_checkpointing: bool = False
    """Keep only the layers' inputs and compute the rest again in the backward pass: less memory, more time."""
    precision: Literal["float32", "bf16"] = "float32"
    """"bf16": matrix products of the update run in bfloat16, softmax and weights stay in the model's own precision."""
    compile: bool = False
    """Compile the training pass with ``torch.compile``; needs a C++ compiler on a CPU, where a model of 2 layers x 128 was seen
    to take 92 s to compile and to be no faster. Not with ``gradient_checkpointing``."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "episodes_per_update", "epochs", "minibatch_episodes", "microbatch_tokens")
        at_least(self, 1, "importance_cap", most=math.inf)
        at_least(self, 0, "gamma", "gae_lambda", most=1)
        at_least(self, 0, "value_coef", "entropy_coef", "kl_coef", "max_staleness")
        in_range(self, "learning_rate", "kl_target", "kl_horizon", above=0)
        in_range(self, "clip_coef", "clip_coef_high", "max_grad_norm", "value_clip", "target_kl", above=0, most=math.inf)
        in_range(self, "dual_clip", above=1, most=math.inf)
        self._check_kl()
        if self.compile and self.gradient_checkpointing:
            raise ValueError(
                "compile and gradient_checkpointing are both True, and tracing layers that are checkpointed was seen to end in "
                "an internal error of torch 2.13; give one of the two"
            )
        if self.credit == "whole_stream" and not self.gamma == self.gae_lambda == 1:
            raise ValueError(
                f"credit is whole_stream with gamma {self.gamma} and gae_lambda {self.gae_lambda}; whole-stream returns are "
                "not discounted, so leave both at 1"
            )

    def _check_kl(self) -> None:
        for name in ("kl_in", "kl_estimator"):
            if not self.kl_coef and getattr(self, name) != getattr(PPOConfig, name):
                raise ValueError(f"{name} is {getattr(self, name)} but kl_coef is 0, so that there is no KL; give kl_coef too")
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator is k1 with kl_in='loss', whose gradient is noise of mean 0; use k2 or k3, or kl_in='reward'"
            )
        if self.kl_target is not None and not self.kl_coef:
            raise ValueError(f"kl_target is {self.kl_target} but kl_coef is 0 and cannot grow; give it a start above 0")
        if self.kl_target is not None and not self.kl_horizon > 0.2 * self.episodes_per_update:
            raise ValueError(
                f"kl_horizon is {self.kl_horizon}; it must be above a fifth of episodes_per_update ({self.episodes_per_update})"
            )

    @property
    def clip_range(self) -> tuple[float, float]:
        """How far the probability ratio is trusted below and above 1."""
        return self.clip_coef, self.clip_coef if self.clip_coef_high is None else self.clip_coef_high
