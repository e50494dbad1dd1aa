"""A policy that is kept as it is, as a function from text to text: an opponent in a task that replies.

Left out on purpose: sampling. A reply is a function of the text, so a player says what is most probable; and it writes a line
where a rollout writes many texts, so there is no cache of keys and values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from textgym import TextTokenizer
from textgym_agents.model import load_lm, load_tokenizer

REMEMBERED = 4096
"""Texts whose continuation a player keeps, the latest ones; others are worked out again, and come to the same."""


class Player:
    """Go on with a text, token by token, each the most probable one, as a callable: ``player(text) -> text``.

    Copies as itself (Gymnasium deep-copies the arguments of ``make``).

    Args:
        folder: where a model and its tokenizer are, as ``textgym train`` leaves them in ``RUN/policy``; or a model's name.
        stop: what it says ends with the token that completes this; end-of-text ends it too.
        max_new_tokens: most tokens that it says; fewer where the model's context ends.
    """

    def __init__(self, folder: str | Path, stop: str = "\n", max_new_tokens: int = 16) -> None:
        self.lm = load_lm(str(folder)).eval()
        self.tokenizer = TextTokenizer(load_tokenizer(str(folder)))
        self.stop = stop
        self.max_new_tokens = max_new_tokens
        self.context_length: int | None = getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)
        self._said: dict[str, str] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Player:
        return self

    @torch.no_grad()
    def __call__(self, text: str) -> str:
        """Say what comes after ``text``, which stands after the begin-of-text token; asked again, it says the same.

        Raises:
            ValueError: the text is longer than the model's context.
        """
        said = self._said.pop(text, None)
        self._said[text] = self._say(text) if said is None else said  # the latest stands last
        if len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        return self._said[text]

    def _say(self, text: str) -> str:
        ids = [self.tokenizer.bos_token_id, *self.tokenizer.encode(text).tolist()]
        start, end = len(ids), len(ids) + self.max_new_tokens
        if self.context_length is not None:
            if start > self.context_length:
                raise ValueError(
                    f"the text {text!r} has {start} tokens but the player's model was made for {self.context_length}; take "
                    "a model with a longer context"
                )
            end = min(end, self.context_length)
        while len(ids) < end and self.stop not in self.tokenizer.decode(ids[start:]):
            logits = self.lm(torch.tensor([ids])).logits[0, -1, : len(self.tokenizer)]
            token = int(logits.argmax())
            if token == self.tokenizer.eos_token_id:
                break
            ids.append(token)
        return self.tokenizer.decode(ids[start:])
