"""A multilayer perceptron over token ids, for libraries whose agents bring no language model.

Left out on purpose: embeddings. The first layer over one-hot vectors is one, a table per place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneHot(nn.Module):
    """Tokens as one-hot vectors, place by place; padding (-1) has a vector of its own.

    Args:
        vocab_size: V.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., L), right-padded with -1 -> (..., L (V + 1)), float32."""
        return nn.functional.one_hot(torch.as_tensor(tokens).long() + 1, self.vocab_size + 1).flatten(-2).float()


def perceptron(length: int, vocab_size: int, outputs: int, width: int = 128) -> nn.Sequential:
    """Build a perceptron with two hidden layers over one-hot tokens, (..., L) -> (..., outputs).

    Args:
        length: L, tokens of an observation.
        vocab_size: V.
        outputs: numbers that it gives.
        width: of its hidden layers.
    """
    first, second, last = nn.Linear(length * (vocab_size + 1), width), nn.Linear(width, width), nn.Linear(width, outputs)
    return nn.Sequential(OneHot(vocab_size), first, nn.ReLU(), second, nn.ReLU(), last)
