"""Stable-Baselines3's own PPO and A2C on retroactive token rewards.

Left out on purpose: an algorithm. What SB3 lets one hand in is enough: an environment, a rollout buffer class, a callback::

    env = VecMonitor(TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=64)))
    model = PPO("MlpPolicy", env, rollout_buffer_class=TokenRewardBuffer)
    model.learn(100_000, callback=TokenRewards())
"""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize

from textgym.info import release
from textgym.integrations.sb3_buffer import TokenRewardBuffer
from textgym.integrations.sb3_env import TextGenVecEnv
from textgym.time_limits import refuse_time_limits

__all__ = ["TextGenVecEnv", "TokenRewardBuffer", "TokenRewards"]


class TokenRewards(BaseCallback):
    """Takes released token rewards to the buffer, which lays them where their tokens are.

    It also checks at every rollout's end that the ledger adds up, keeps the optimizer from stepping on neutral batches (their
    gradients are dropped, so that momentum does not move the weights either), and logs ``textgym/``: ``tokens_played``,
    ``tokens_held``, ``tokens_learned``, ``tokens_abandoned``, ``rewards`` and ``bootstrap``, all totals over all calls of
    ``learn``.

    Raises:
        ValueError: the model has no ``TokenRewardBuffer``; or its environment normalises rewards, has a time limit that cuts
            texts, or releases nothing at a text's end.
    """

    def _on_training_start(self) -> None:
        self._buffer()
        env: Any = self.training_env
        while isinstance(env, VecEnvWrapper):
            if isinstance(env, VecNormalize) and env.norm_reward:
                raise ValueError(
                    "VecNormalize has norm_reward=True: its scale comes from per-step rewards, 0 but for a text's last step, "
                    "and token rewards would not have it; use norm_reward=False, and normalise advantages"
                )
            env = env.venv
        if isinstance(env, DummyVecEnv):
            for single in env.envs:
                refuse_time_limits(single)
        self._remove_hook()
        self._hook = self.model.policy.optimizer.register_step_pre_hook(self._before_optimizer_step)

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        releases = {}
        for slot in np.flatnonzero(self.locals["dones"]).tolist():
            released = release(infos[slot])
            if released is None:
                raise ValueError(
                    f"the episode in slot {slot} ended without a release; a time limit around the environment cut it, or its "
                    f"rewards come late (reward_workers). Its info has {sorted(infos[slot])}"
                )
            releases[slot] = released
        self._buffer().announce(self.locals["rewards"], releases)
        return True

    def _on_rollout_end(self) -> None:
        buffer = self._buffer()
        buffer.check_ledger()
        for name in ("tokens_played", "tokens_held", "tokens_learned", "tokens_abandoned"):
            self.logger.record(f"textgym/{name}", getattr(buffer, name))
        self.logger.record("textgym/rewards", buffer.ledger.asked)
        self.logger.record("textgym/bootstrap", -buffer.ledger.accounts["bootstrap"])

    def _on_training_end(self) -> None:
        self._remove_hook()

    _hook: Any = None

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _before_optimizer_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._buffer().is_neutral:
            optimizer.zero_grad(set_to_none=True)

    def _buffer(self) -> TokenRewardBuffer:
        buffer = getattr(self.model, "rollout_buffer", None)
        if not isinstance(buffer, TokenRewardBuffer):
            raise ValueError(
                f"the model's rollout buffer is a {type(buffer).__name__}; make it with rollout_buffer_class=TokenRewardBuffer"
            )
        return buffer
