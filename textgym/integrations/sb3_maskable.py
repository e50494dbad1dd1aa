"""sb3-contrib's own MaskablePPO on retroactive token rewards.

Left out on purpose: an algorithm, and a second callback: ``TokenRewards`` of ``sb3`` serves this buffer too::

    env = TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=64, task=...))
    model = MaskablePPO("MlpPolicy", env, rollout_buffer_class=MaskableTokenRewardBuffer)
    model.learn(100_000, callback=TokenRewards())
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer, MaskableRolloutBufferSamples
from stable_baselines3.common.buffers import RolloutBuffer

from textgym.integrations.sb3_buffer import TokenRewardBuffer


class MaskableTokenRewardBuffer(TokenRewardBuffer, MaskableRolloutBuffer):  # type: ignore[misc] (sb3-contrib's own samples)
    """A ``TokenRewardBuffer`` that keeps each step's action mask too, a bit per token of the vocabulary."""

    action_masks: npt.NDArray[np.uint8]  # packed, (M, ceil(V / 8))
    _bits: npt.NDArray[np.uint8] | None = None  # of the step that is being added

    def add(self, *args: Any, action_masks: npt.NDArray[Any] | None = None, **kwargs: Any) -> None:
        """Take a step of all slots; see ``TokenRewardBuffer.add``.

        Args:
            args: as there.
            kwargs: as there.
            action_masks: bool (N, V); None: every token was allowed.
        """
        size = int(self.action_space.n)  # type: ignore[attr-defined]
        masks = np.ones((self.n_envs, size), dtype=np.bool_) if action_masks is None else action_masks
        self._bits = np.packbits(masks.reshape(self.n_envs, size).astype(np.bool_), axis=1)
        super().add(*args, **kwargs)

    def _store(self, **step: npt.NDArray[Any]) -> None:
        assert self._bits is not None
        super()._store(**step, action_masks=self._bits)

    def _get_samples(self, batch_inds: npt.NDArray[np.int64], env: Any = None) -> Any:
        size = int(self.action_space.n)  # type: ignore[attr-defined]
        masks = np.unpackbits(self.action_masks[batch_inds], axis=1, count=size)
        samples = RolloutBuffer._get_samples(self, batch_inds, env)  # without the masks, which would be read unpacked
        return MaskableRolloutBufferSamples(*samples, action_masks=self.to_torch(masks.astype(np.float32)))
