"""A model for RLlib's new API stack that reads token ids; its default model takes them for floats, and fails.

Left out on purpose: a language model. RLlib steps token by token without a cache of what the model has read.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns  # pyright: ignore[reportMissingImports] (pins Gymnasium: not in dev)
from ray.rllib.core.rl_module.apis import ValueFunctionAPI  # pyright: ignore[reportMissingImports]
from ray.rllib.core.rl_module.torch import TorchRLModule  # pyright: ignore[reportMissingImports]
from torch import Tensor

from textgym_agents.integrations.perceptron import perceptron


class TokenModule(TorchRLModule, ValueFunctionAPI):
    """Actor and critic, two perceptrons over one-hot tokens: ``RLModuleSpec(module_class=TokenModule)``.

    With ``observation="dict"`` the actor gives no token that the mask forbids.
    """

    def setup(self) -> None:
        """Build both for the spaces of a textgym environment."""
        space, size = self.observation_space, int(self.action_space.n)
        tokens = space["tokens"] if isinstance(space, gym.spaces.Dict) else space
        assert isinstance(tokens, gym.spaces.Box)
        (length,) = tokens.shape
        self.actor, self.critic = perceptron(length, size, size), perceptron(length, size, 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        seen = batch[Columns.OBS]
        logits = self.actor(_tokens(seen))
        if isinstance(seen, dict):
            logits = logits.masked_fill(seen["action_mask"] == 0, torch.finfo(logits.dtype).min)
        return {Columns.ACTION_DIST_INPUTS: logits}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Value each observation: (B, L) -> (B,)."""
        return self.critic(_tokens(batch[Columns.OBS])).squeeze(-1)


def _tokens(seen: Any) -> Tensor:
    return seen["tokens"] if isinstance(seen, dict) else seen
