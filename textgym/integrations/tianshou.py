"""Token rewards for tianshou 2: a hook that lays them on the collected steps, and returns that stay inside streams.

Left out on purpose: a collector and a trainer of our own. The hook is tianshou's ``on_episode_done_hook``, which sees an
episode when it has ended and before anything learns from it; as tianshou says, it needs whole episodes (``n_episode``, or
``collection_step_num_episodes``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tianshou.algorithm.algorithm_base import Algorithm
from tianshou.data import Batch
from tianshou.data.collector import EpisodeRolloutHook

from textgym.info import release
from textgym.integrations.steps import agent_steps, stream_advantages


class TokenRewards(EpisodeRolloutHook):
    """Replaces the reward of each step by its token's, and adds ``token_stream``, when an episode has ended.

    ``Collector(..., on_episode_done_hook=TokenRewards())``. The collector's own statistics keep the sum.
    """

    def __init__(self) -> None:
        self.rewards_placed = 0.0
        """Sum of all token rewards that were written."""

    def __call__(self, episode_batch: Any) -> dict[str, np.ndarray]:
        """Give ``rew`` and ``token_stream``, float64 (S,) each, of an episode of S steps.

        The stream is a float because the buffer marks what is missing as NaN.

        Raises:
            ValueError: its last step has no release (a time limit from outside cut it, or rewards come late), or the steps do
                not fit its tokens.
        """
        released = release({key: values[-1] for key, values in episode_batch.info.items()})
        if released is None or released.num_tokens == 0:  # the buffer fills keys that a step lacks
            raise ValueError(
                "the last step of an episode has no release: a time limit from outside has cut it; leave max_episode_steps "
                "out of gym.make, and give max_new_tokens instead"
            )
        rewards, streams = agent_steps(released.token_rewards, released.streams, released.agent_mask, len(episode_batch))
        self.rewards_placed += float(rewards.sum(dtype=np.float64))
        return {"rew": rewards.astype(np.float64), "token_stream": streams.astype(np.float64)}


class PerStream:
    """Mix into an on-policy algorithm, in front of it, for returns inside streams: ``class StreamPPO(PerStream, PPO): ...``.

    Needs ``TokenRewards`` as the collector's hook. With one stream it gives tianshou's own generalised advantages.
    """

    @staticmethod
    def compute_episodic_return(
        batch: Batch,
        buffer: Any,
        indices: np.ndarray,
        v_s_: Any = None,
        v_s: Any = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute returns and advantages (B,) of whole episodes; arguments as ``Algorithm.compute_episodic_return`` has them.

        Raises:
            ValueError: values are missing, or the last episode has not ended.
        """
        if v_s is None or v_s_ is None:
            raise ValueError("returns per stream need the values of an actor-critic algorithm; v_s or v_s_ is None")
        ends = np.flatnonzero(batch.done) + 1
        if len(ends) == 0 or ends[-1] != len(indices):
            raise ValueError("the last episode of the batch has not ended; collect with collection_step_num_episodes")
        values, after = np.asarray(v_s), np.asarray(v_s_) * Algorithm.value_mask(buffer, indices)
        streams = np.asarray(batch.token_stream, dtype=np.int64)
        advantages = np.concatenate(
            [
                stream_advantages(
                    batch.rew[start:end],
                    values[start:end],
                    streams[start:end],
                    float(after[end - 1]),
                    gamma=gamma,
                    gae_lambda=gae_lambda,
                )
                for start, end in zip([0, *ends[:-1]], ends, strict=True)
            ]
        )
        return advantages + values, advantages
