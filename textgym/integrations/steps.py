"""A release in steps of the agent, and the advantages of one episode: what the glue of several libraries stands on.

Left out on purpose: batches. One episode at a time is how these libraries hand episodes over when they end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.integrations.stream_gae import stream_gae


def agent_steps(
    token_rewards: npt.NDArray[np.float32], streams: npt.NDArray[np.int64], agent_mask: npt.NDArray[np.bool_], steps: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Give the reward and the stream of each action of an episode: float32 (S,) and int64 (S,), S its number of steps.

    Args:
        token_rewards: float32 (T,), as a release has them.
        streams: int64 (T,).
        agent_mask: bool (T,).
        steps: how many steps of the episode the library has.

    Raises:
        ValueError: the library has another number of steps than the episode had; names both.
    """
    taken = int(np.count_nonzero(agent_mask))
    if steps != taken:
        raise ValueError(
            f"an episode's release has {taken} tokens of the agent but {steps} steps of it are stored: a step was lost, or "
            "stored twice, or a time limit from outside has cut the text; store every step from reset to end, none in which "
            "the environment only resets, and give max_new_tokens instead of max_episode_steps"
        )
    return token_rewards[agent_mask], streams[agent_mask]


def successors(streams: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the next step of the same stream: int64 (S,), -1 where there is none.

    Args:
        streams: int (S,), one per step of the agent.
    """
    following = np.full(len(streams), -1, dtype=np.int64)
    for stream in np.unique(streams):
        steps = np.flatnonzero(streams == stream)
        following[steps[:-1]] = steps[1:]
    return following


def stream_advantages(
    rewards: npt.NDArray[np.floating[Any]],
    values: npt.NDArray[np.floating[Any]],
    streams: npt.NDArray[np.int64],
    final_value: float = 0.0,
    *,
    gamma: float = 1.0,
    gae_lambda: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Generalised advantage estimation that stays inside each stream, for one episode.

    For step t of stream k the successor t' is the next step of the same stream::

        delta_t = r_t + gamma V(t') - V(t)
        A_t     = delta_t + gamma gae_lambda A_t'

    The last step of a stream has successor value 0, the last step of the episode ``final_value``. With one stream this is
    ordinary GAE (Schulman et al., 2016), exactly.

    Args:
        rewards: float (S,).
        values: float (S,), V before each step.
        streams: int (S,).
        final_value: V of the final observation where the episode was truncated, else 0.
        gamma: discount per step of the stream.
        gae_lambda: 1 makes the advantage the stream's reward-to-go minus V.
    """
    # One step more of the last stream, worth the final value, is gamma times that value in the reward of the last step.
    paid = np.array(rewards, dtype=np.float64)
    paid[-1] += gamma * final_value
    texts = np.zeros(len(paid), dtype=np.int64)
    return stream_gae(paid, values, streams, texts, gamma=gamma, gae_lambda=gae_lambda).astype(np.float32)
