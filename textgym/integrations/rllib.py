"""Token rewards for RLlib's new API stack: a callback that hands over whole texts, each token with its reward.

Left out on purpose: a connector, a learner and an environment creator of our own. Each stream becomes an episode, so that
RLlib's own generalised advantages are those inside each stream; and RLlib makes what Gymnasium has registered.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from ray.rllib.callbacks.callbacks import RLlibCallback  # pyright: ignore[reportMissingImports] (pins Gymnasium: not in dev)
from ray.rllib.env.single_agent_episode import SingleAgentEpisode  # pyright: ignore[reportMissingImports]

from textgym.info import release
from textgym.integrations.steps import agent_steps
from textgym.time_limits import refuse_time_limits
from textgym.vector import TextGenVectorEnv


class TokenRewards(RLlibCallback):
    """Puts whole texts, an episode per stream, in the place of what has been sampled: ``config.callbacks(TokenRewards)``.

    A text that crosses the end of a sample is handed over whole with the sample in which it ends, in either ``batch_mode``.
    RLlib's own metrics of episodes stay those of texts and their sums; ``token_rewards_placed`` beside them is the sum of
    all token rewards that were handed over.
    """

    def __init__(self) -> None:
        self._running: dict[str, list[SingleAgentEpisode]] = {}

    @property
    def waiting(self) -> int:
        """Steps whose text has not ended yet."""
        return sum(len(chunk) for chunks in self._running.values() for chunk in chunks)

    def on_environment_created(self, *, env: gym.vector.VectorEnv[Any, Any, Any], **kwargs: Any) -> None:
        """Refuse an environment whose texts RLlib would read wrongly, or would have without their rewards.

        Raises:
            ValueError: it resets in the step that ends a text, and RLlib takes the first action of the next one for the reset;
                or rewards come late; or a ``TimeLimit`` would cut texts before them.
        """
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"autoreset_mode is {mode}, but RLlib takes the step after an end for the reset; give "
                'env_config={"autoreset_mode": "NextStep", ...}, or leave gym_env_vectorize_mode at "sync"'
            )
        if isinstance(env, TextGenVectorEnv) and env._late:
            raise ValueError("rewards come after their texts' ends; leave reward_workers out of env_config")
        refuse_time_limits(env)

    def on_sample_end(self, *, metrics_logger: Any, samples: list[SingleAgentEpisode], **kwargs: Any) -> None:
        """Keep pieces of texts that go on, and replace the others by whole texts with the rewards of their tokens.

        Raises:
            ValueError: the last step of a text has no release, or its steps do not fit its tokens.
        """
        running, streams = {}, []
        for chunk in samples:
            chunks = [*self._running.get(chunk.id_, []), chunk]
            if chunk.is_done:
                streams += _streams(chunks)
            else:
                running[chunk.id_] = chunks
        self._running = running  # a text that is in no sample any more was given up by RLlib, which has reset its environment
        samples[:] = streams
        placed = sum(float(np.sum(stream.get_rewards(), dtype=np.float64)) for stream in streams)
        metrics_logger.log_value("token_rewards_placed", placed, reduce="lifetime_sum")


def _streams(chunks: list[SingleAgentEpisode]) -> list[SingleAgentEpisode]:
    """Make an episode of each stream of a whole text, in the order of their numbers.

    That with the text's last step ends as the text does, the others terminate: what comes after them is another stream's.
    """
    last = chunks[-1]
    released = release(last.get_infos(-1))
    if released is None:
        raise ValueError(
            "the last step of an episode has no release: a time limit from outside has cut it; leave max_episode_steps out of "
            "env_config, and give max_new_tokens instead"
        )
    steps = [(chunk, step) for chunk in chunks for step in range(len(chunk))]
    rewards, streams = agent_steps(released.token_rewards, released.streams, released.agent_mask, len(steps))
    episodes = []
    for stream in np.unique(streams):
        own = np.flatnonzero(streams == stream)
        taken = [steps[step] for step in own]
        chunk, step = taken[-1]
        seen, ends_text = [*taken, (chunk, step + 1)], own[-1] + 1 == len(steps)
        episode = SingleAgentEpisode(
            observations=[chunk.get_observations(step) for chunk, step in seen],
            observation_space=last.observation_space,
            infos=[chunk.get_infos(step) for chunk, step in seen],
            actions=[chunk.get_actions(step) for chunk, step in taken],
            action_space=last.action_space,
            rewards=rewards[own].tolist(),
            terminated=last.is_terminated or not ends_text,
            truncated=last.is_truncated and ends_text,
            extra_model_outputs={
                key: [chunk.get_extra_model_outputs(key, step) for chunk, step in taken] for key in last.extra_model_outputs
            },
            len_lookback_buffer=0,
        )
        episodes.append(episode.to_numpy() if last.is_numpy else episode)
    return episodes
