"""The native vector environment as a VecEnv of Stable-Baselines3.

Left out on purpose: an environment per slot. The N texts are stepped at once, so an attribute or a method is one of the
vector environment; infos are dicts that were made once, and only where a text ends is a new one filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from textgym.vector import TextGenVectorEnv

# One item per slot; all else is shared.
_PER_SLOT = ("np_random", "np_random_seed", "response_lengths", "prompt_lengths", "text_lengths")


class TextGenVecEnv(VecEnv):
    """N texts at once, for any algorithm of SB3: ``PPO(policy, TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", 64)))``.

    Where a text ends, its info holds what ``textgym.release(info)`` reads, and SB3's own keys ``terminal_observation`` and
    ``TimeLimit.truncated``; ``episode`` comes from ``VecMonitor``. The infos of running texts are empty.

    Args:
        envs: the native vector environment (SAME_STEP, numpy, no reward workers), as it is or in vector wrappers.

    Raises:
        ValueError: it is another one, or made with other options; says how to make it.
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        native = envs.unwrapped
        if not isinstance(native, TextGenVectorEnv):
            raise ValueError(
                f"envs is a {type(native).__name__}; give a native one, gym.make_vec('textgym:TextGen-v0', num_envs=N), or put "
                "single environments into SB3's DummyVecEnv"
            )
        if native.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"autoreset_mode is {native.autoreset_mode.value}; SB3 starts texts anew under SameStep")
        if not isinstance(native.as_output(np.zeros(1)), np.ndarray):
            raise ValueError("output is 'torch'; SB3 takes numpy arrays, make it with output='numpy'")
        if native.infos == "objects":
            raise ValueError("infos is 'objects'; SB3 has one info of arrays per text, make it with infos='arrays'")
        if native.releases_late:
            raise ValueError(
                "it has reward workers: rewards would come after the ends of their texts, where SB3 does not look for them; "
                "make it with reward_workers=0"
            )
        self.envs: Any = envs
        self.native = native
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._actions: Any = None
        self._blank: list[dict[str, Any]] = [{} for _ in range(envs.num_envs)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed slot i with ``seed + i // group_size`` at the next reset, as the native environment does."""
        if seed is None:
            return super().seed(None)
        seeds: list[int | None] = [seed + slot // self.native.group_size for slot in range(self.num_envs)]
        self._seeds = seeds
        return seeds

    def reset(self) -> Any:
        """Start a text in every slot. Returns observations (N, ...).

        Raises:
            ValueError: the options differ between slots.
        """
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError(f"options are {self._options}; slots start together, give one dict to set_options for all of them")
        obs, _ = self.envs.reset(seed=list(self._seeds), options=dict(options) or None)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take the actions (N,) of the next ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Append a token to every text. Returns observations (N, ...), rewards float32 (N,), dones bool (N,), N infos."""
        obs, rewards, terminated, truncated, vector_infos = self.envs.step(self._actions)
        dones, infos = terminated | truncated, self._blank.copy()
        for slot in np.flatnonzero(dones).tolist():
            infos[slot] = _info(vector_infos, slot)
        return obs, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Draw every slot's text, with ``render_mode="rgb_array"``."""
        return list(self.envs.render() or ())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Give an attribute of the vector environment (or its rules), once for each of ``indices``.

        ``observation_space`` and ``action_space`` are a slot's; ``np_random``, ``np_random_seed``, ``response_lengths`` and
        ``prompt_lengths`` give each slot its own.
        """
        slots = list(self._get_indices(indices))
        if attr_name in ("observation_space", "action_space"):
            attr_name = f"single_{attr_name}"
        value = getattr(self._holder(attr_name), attr_name)
        return [value[slot] for slot in slots] if attr_name in _PER_SLOT else [value] * len(slots)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment, for all slots.

        Raises:
            ValueError: only some slots are named, or the attribute is part of the rules, which a running environment keeps.
        """
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(
                f"{attr_name} was to be set for slots {indices}; the {self.num_envs} slots share it, set it for all"
            )
        if not hasattr(self.native, attr_name) and hasattr(self.native.rules, attr_name):
            raise ValueError(f"{attr_name} belongs to the rules of the running texts; make another environment with it")
        setattr(self.native, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the vector environment once; it answers None or with one item per slot.

        Raises:
            ValueError: it answers with something else.
        """
        slots = list(self._get_indices(indices))
        answer = getattr(self._holder(method_name), method_name)(*method_args, **method_kwargs)
        if answer is None:
            return [None] * len(slots)
        if not isinstance(answer, list | tuple | np.ndarray) or len(answer) != self.num_envs:
            raise ValueError(
                f"{method_name} answers with {type(answer).__name__}, not with one item for each of {self.num_envs} slots; "
                "call it on .envs"
            )
        return [answer[slot] for slot in slots]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Say for each of ``indices`` whether the vector environment stands in such a wrapper; no slot has one of its own."""
        wrapped, layer = False, self.envs
        while isinstance(layer, gym.vector.VectorWrapper):
            wrapped = wrapped or isinstance(layer, wrapper_class)
            layer = layer.env
        return [wrapped] * len(list(self._get_indices(indices)))

    def _holder(self, name: str) -> Any:
        """Find who has the attribute: a wrapper, the native environment or its rules."""
        layer = self.envs
        while isinstance(layer, gym.vector.VectorWrapper):
            if name in vars(layer) or hasattr(type(layer), name):
                return layer
            layer = layer.env
        return self.native if hasattr(self.native, name) or not hasattr(self.native.rules, name) else self.native.rules


def _info(infos: dict[str, Any], slot: int) -> dict[str, Any]:
    """Write the info of the text that ended in ``slot`` as a single environment has it, with SB3's two keys."""
    final = infos["final_info"]
    info = {}
    for key, values in final.items():
        if not key.startswith("_") and final[f"_{key}"][slot]:
            value = values[slot]
            info[key] = value.item() if isinstance(value, np.generic) else value
    return info | {"terminal_observation": infos["final_obs"][slot], "TimeLimit.truncated": info["truncated"]}
