"""Advantages per stream in numpy, for libraries whose buffers are numpy arrays.

Left out on purpose: padding, environment tokens and truncation. Who calls it hands in agent tokens only, and adds gamma times
the value of a cut text's last observation to the reward of its last token, which is the same thing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def stream_gae(
    token_rewards: npt.NDArray[Any],
    values: npt.NDArray[Any],
    streams: npt.NDArray[np.int64],
    texts: npt.NDArray[np.int64],
    *,
    gamma: float = 1.0,
    gae_lambda: float = 1.0,
) -> npt.NDArray[np.float64]:
    """Generalised advantage estimation that stays inside each stream of each text.

    For token t of stream k, the successor t' is the next token of the same stream and text, whatever stands between::

        delta_t = r_t + gamma V(t') - V(t)
        A_t     = delta_t + gamma gae_lambda A_t'

    The last token of a stream has successor value 0. This is ``textgym_agents.stream_gae`` over a flat list of tokens.

    Args:
        token_rewards: float (M,), agent tokens of one text or many, each text's in their order.
        values: float (M,), V before each token.
        streams: int (M,).
        texts: int (M,), which text each token belongs to.
        gamma: discount per token of the stream.
        gae_lambda: 1 makes the advantage the stream's reward-to-go minus V(t).

    Returns:
        Advantages, float64 (M,).

    Raises:
        ValueError: the shapes differ, or a reward or value is not finite.
    """
    for name, array in (("values", values), ("streams", streams), ("texts", texts)):
        if array.shape != token_rewards.shape or array.ndim != 1:
            raise ValueError(f"{name} has shape {array.shape}, expected {token_rewards.shape}, as token_rewards; both (M,)")
    for name, array in (("token_rewards", token_rewards), ("values", values)):
        for token in np.flatnonzero(~np.isfinite(array))[:1]:
            raise ValueError(f"{name} of token {token} (text {texts[token]}) is {array[token]}; it must be finite")
    order = np.lexsort((streams, texts))  # stable: tokens of one stream follow each other in their order
    values, rewards = values[order].astype(np.float64), token_rewards[order].astype(np.float64)
    follows = np.zeros(len(order), dtype=np.bool_)  # a token of the same stream and text comes next
    follows[:-1] = (texts[order][1:] == texts[order][:-1]) & (streams[order][1:] == streams[order][:-1])
    delta = rewards - values
    delta[:-1] += gamma * values[1:] * follows[:-1]
    found, advantage = [], 0.0
    for step, weight in zip(delta[::-1].tolist(), (gamma * gae_lambda * follows)[::-1].tolist(), strict=True):
        advantage = step + weight * advantage
        found.append(advantage)
    advantages = np.empty(len(order))
    advantages[order] = found[::-1]
    return advantages
