"""Token ids as features for the multilayer perceptrons of Stable-Baselines3.

Left out on purpose: learned embeddings. A perceptron's first layer over one-hot vectors is one, a table per place.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor


class RecentTokens(BaseFeaturesExtractor):
    """Each token as a one-hot vector, the latest first, all zeros where the text has no more.

    SB3 by itself would hand the numbers of the tokens to the network. Use it as
    ``policy_kwargs={"features_extractor_class": RecentTokens}``.

    Args:
        observation_space: ``Box(-1, V - 1, (L,))``; the features are L V numbers.
    """

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        assert isinstance(observation_space, gym.spaces.Box)
        self.vocab_size = int(observation_space.high.max()) + 1
        super().__init__(observation_space, observation_space.shape[0] * self.vocab_size)

    def forward(self, observations: Tensor) -> Tensor:
        """(B, L), right-padded with -1 -> (B, L V)."""
        lengths = (observations >= 0).sum(1, keepdim=True)
        places = lengths - 1 - torch.arange(observations.shape[1], device=observations.device)
        recent = observations.gather(1, places.clamp(min=0)).masked_fill(places < 0, -1)
        return (recent[:, :, None] == torch.arange(self.vocab_size, device=observations.device)).float().flatten(1)
