"""Token rewards for TorchRL: the release read into the tensordict, and whole trajectories in which each token has its reward.

Left out on purpose: an advantage of our own. Streams are split into trajectories, each step followed by the next one of its
stream, so that TorchRL's own ``GAE``, over one flat time axis, is the advantage that stays inside each stream.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torchrl.data import Composite, Unbounded
from torchrl.envs import GymWrapper, default_info_dict_reader

from textgym.integrations.steps import agent_steps, successors
from textgym.vector import TextGenVectorEnv

_RELEASE = {"token_rewards": torch.float32, "token_streams": torch.int64, "agent_mask": torch.bool}


def wrap(envs: gym.vector.VectorEnv[Any, Any, Any]) -> Any:
    """Wrap a native vector environment; a release stands under ``("next", "token_rewards")`` and so on.

    Args:
        envs: the native vector environment, made with ``autoreset_mode="Disabled"``: TorchRL resets what has ended.

    Raises:
        ValueError: it is another one, or in another mode, or rewards come late, or its infos are no arrays.
    """
    native = envs.unwrapped
    if not isinstance(native, TextGenVectorEnv) or native.autoreset_mode is not AutoresetMode.DISABLED or native.releases_late:
        raise ValueError(
            f"envs is a {type(native).__name__} in mode {envs.metadata.get('autoreset_mode')}; give a native one without "
            'reward workers: gym.make_vec("textgym:TextGen-v0", num_envs=N, autoreset_mode="Disabled")'
        )
    if native.infos == "objects":
        raise ValueError("infos is 'objects'; TorchRL reads arrays from infos, make it with infos='arrays'")
    size = torch.Size((native.num_envs, native.rules.max_response_tokens))
    spec: dict[str, Any] = {key: Unbounded(size, dtype=dtype) for key, dtype in _RELEASE.items()}
    reader = default_info_dict_reader([*spec], spec=Composite(spec, shape=size[:1]))
    return GymWrapper(envs, categorical_action_encoding=True).set_info_dict_reader(reader)


class TokenRewards:
    """Makes whole texts, tokens with their rewards, of what is collected: ``Collector(..., postproc=TokenRewards())``.

    A text that crosses the end of a batch is handed over whole in the batch in which it ends.
    """

    def __init__(self) -> None:
        self.rewards_placed = 0.0
        """Sum of all token rewards that were handed over."""
        self._kept: list[Any] = []

    @property
    def waiting(self) -> int:
        """Steps whose text has not ended yet."""
        return sum(len(kept) for kept in self._kept if kept is not None)

    def __call__(self, collected: Any) -> Any:
        """Give whole trajectories, one per stream, one after the other: (1, B), from (N, steps).

        ``("next", "reward")`` is the token's; ``("next", "observation")`` what the next step of the same stream answers;
        ``done`` and ``terminated`` stand at the end of each stream, ``truncated`` as TorchRL had it.

        Raises:
            ValueError: no text has ended, or steps do not fit a text's tokens.
        """
        self._kept = self._kept or [None] * len(collected)
        episodes = []
        for slot in range(len(collected)):
            steps: Any = collected[slot]
            kept = self._kept[slot]
            if kept is not None:
                steps = torch.cat([kept, steps])
            start = 0
            for end in (steps["next", "done"].flatten().nonzero().flatten() + 1).tolist():
                episodes.append(self._place(steps[start:end].clone()))
                start = end
            self._kept[slot] = steps[start:].clone() if start < len(steps) else None
        if not episodes:
            raise ValueError(
                f"no text has ended in this batch, {self.waiting} steps are waiting; make frames_per_batch at least "
                "num_envs * max_new_tokens"
            )
        return torch.cat(episodes)[None]

    def _place(self, steps: Any) -> Any:
        """Lay the token rewards on the steps of one text (S,), and put its streams one after the other."""
        token_rewards, token_streams, agent_mask = (steps["next", key][-1].cpu().numpy() for key in _RELEASE)
        rewards, streams = agent_steps(token_rewards, token_streams, agent_mask, len(steps))
        self.rewards_placed += float(rewards.sum(dtype=np.float64))
        following = successors(streams)
        following[-1] = len(steps)  # the episode's last step keeps its own end
        steps["next", "reward"] = torch.as_tensor(rewards).to(steps["next", "reward"]).reshape(steps["next", "reward"].shape)
        others = torch.as_tensor(np.flatnonzero((following >= 0) & (following < len(steps))))
        steps["next", "observation"][others] = steps["observation"][torch.as_tensor(following)[others]]
        ends = torch.as_tensor(following < 0)
        for key in ("done", "terminated"):
            steps["next", key][ends] = True
        return steps[torch.as_tensor(np.argsort(streams, kind="stable"))]
