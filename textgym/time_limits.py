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
        env: a textgym environment as it is wrapped, or a vector environment of such.

    Raises:
        ValueError: a limit is not above the environment's own; says both.
    """
    if isinstance(env, gym.vector.VectorEnv):
        host: Any = env.unwrapped
        if hasattr(host, "envs"):  # SyncVectorEnv
            for single in host.envs:
                refuse_time_limits(single)
        elif isinstance(host, gym.vector.AsyncVectorEnv):
            for spec, rules in zip(host.get_attr("spec"), host.get_attr("rules"), strict=True):
                if spec is not None:
                    limits = [spec.max_episode_steps, *(_limit(wrapper.kwargs) for wrapper in spec.additional_wrappers)]
                    _refuse([limit for limit in limits if limit is not None], rules.max_new_tokens)
        return
    limits = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    _refuse(limits, layer.rules.max_new_tokens)


def _limit(kwargs: Any) -> int | None:
    return (kwargs or {}).get("max_episode_steps")


def _refuse(limits: list[int], own: int) -> None:
    for limit in limits:
        if limit <= own:
            raise ValueError(
                f"a TimeLimit of {limit} steps is around an environment whose texts may have {own} tokens of the agent: it "
                "would cut a text before its rewards are released; leave max_episode_steps out of gym.make and give "
                "max_new_tokens instead"
            )
