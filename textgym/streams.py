"""The check of a partition that a task gives: one stream per response token.

Left out on purpose: streams that spans name, which ``rewards`` reads off the text with their rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode
from textgym.rewards import from_tensor


def check_streams(streams: Any, episodes: Sequence[Episode]) -> list[npt.NDArray[np.int64]]:
    """Check what a streams function returned: int (T,) per episode, at least 0 on the agent's tokens.

    Returns:
        int64 (T,) per episode, -1 on environment tokens (whatever the function said there).

    Raises:
        ValueError: naming the episode.
    """
    array_like = hasattr(streams, "shape") and len(streams.shape) >= 1
    if not (array_like or isinstance(streams, Sequence)) or len(streams) != len(episodes):
        count = f"{len(streams)} items" if array_like or isinstance(streams, Sequence) else f"a {type(streams).__name__}"
        raise ValueError(f"the streams function returned {count} for {len(episodes)} episodes; return one array per episode")
    checked = []
    for given, episode in zip(streams, episodes, strict=True):
        array = np.asarray(from_tensor(given, episode, " as streams"))
        if array.shape != (len(episode.ids),) or array.dtype.kind not in "iu":
            raise ValueError(
                f"streams of episode {episode.episode_id} have shape {array.shape} and dtype {array.dtype}; return "
                f"integers of shape ({len(episode.ids)},), one per response token"
            )
        out = np.where(episode.agent_mask, array.astype(np.int64), -1)
        for token in np.flatnonzero(episode.agent_mask & ((out < 0) | (out >= 2**31)))[:1]:
            raise ValueError(
                f"streams of episode {episode.episode_id} have {out[token]} on token {token}; the agent's tokens need a "
                "stream from 0 to 2**31 - 1"
            )
        checked.append(out)
    return checked
