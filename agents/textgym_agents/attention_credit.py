"""Weights for ``textgym.credit.Attention``: where a model's last position looks.

Left out on purpose: a model. The policy's own, a reward model's, any that transformers can run with eager attention will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from textgym import Episode


class AttentionWeights:
    """Reads a model's attention from the last position of prompt and response to each response token, averaged over heads.

    The model runs with eager attention for that pass, because faster kinds keep no weights, and is then set back: its weights
    are those of the moment, so a policy that learns is read as it stands. Call it from one thread at a time.

    Args:
        model: a transformers model with the tokenizer of the texts; a causal language model, or a classifier that scores.
        layer: which layer; -1 is the last.
        batch: texts per pass. A pass holds the attention of all layers, ``batch x heads x L x L`` each.
    """

    def __init__(self, model: PreTrainedModel, layer: int = -1, batch: int = 16) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        self.model = model
        self.layer = layer
        self.batch = batch

    def __deepcopy__(self, memo: object) -> AttentionWeights:
        return self  # an environment's spec copies its arguments; the model is not one of them

    @torch.no_grad()
    def __call__(self, episodes: Sequence[Episode]) -> list[npt.NDArray[np.float64]]:
        """Give float64 (T,) per episode: at least 0, and with the prompt's share at most 1 in total."""
        out: list[npt.NDArray[np.float64]] = []
        with _eager(self.model):
            for first in range(0, len(episodes), self.batch):
                out += self._read(episodes[first : first + self.batch])
        return out

    def _read(self, episodes: Sequence[Episode]) -> list[npt.NDArray[np.float64]]:
        texts = [torch.from_numpy(np.concatenate([np.asarray(e.prompt.ids), e.ids])) for e in episodes]
        # Padding stands to the right, where causal attention never looks from a text's own positions.
        ids = pad_sequence(texts, batch_first=True).to(self.model.device)
        mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True).to(self.model.device)
        layers = self.model.base_model(input_ids=ids, attention_mask=mask, output_attentions=True, use_cache=False).attentions
        weights = layers[self.layer].float().mean(1).double().cpu().numpy()
        return [
            weights[row, len(text) - 1, len(text) - len(episode.ids) : len(text)]
            for row, (text, episode) in enumerate(zip(texts, episodes, strict=True))
        ]


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before
