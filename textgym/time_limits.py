"""Time limits from outside, which cut a text before its rewards are released.

Left out on purpose: the environment's own length limit, which is part of its rules. A ``TimeLimit`` around an environment
cannot be seen from inside, so whoever is handed one asks here.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit


def refuse_time_limits(env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]) -> None:
    """Raise where a ``TimeLimit`` is wrapped around a textgym environment that would cut its episodes.

    Args:
        env: a textgym environment as it is wrapped, or a vector environment of such. Of an ``AsyncVectorEnv`` only the
            outermost limit of each environment can be asked for.

    Raises:
        ValueError: a limit is not above the environment's own; says both.
    """
    if isinstance(env, gym.vector.VectorEnv):
        host: Any = env.unwrapped
        if hasattr(host, "envs"):  # SyncVectorEnv
            for single in host.envs:
                refuse_time_limits(single)
        elif isinstance(host, gym.vector.AsyncVectorEnv):
            for limit, own in zip(host.get_attr("_max_episode_steps"), host.get_attr("max_new_tokens"), strict=True):
                _refuse([] if limit is None else [limit], own)
        return
    limits = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    _refuse(limits, layer.max_new_tokens)


def _refuse(limits: list[int], own: int) -> None:
    for limit in limits:
        if limit <= own:
            raise ValueError(
                f"a TimeLimit of {limit} steps is around an environment whose texts may have {own} tokens of the agent: it "
                "would cut a text before its rewards are released; leave max_episode_steps out of gym.make and give "
                "max_new_tokens instead"
            )
