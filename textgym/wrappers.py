"""A wrapper for the token rewards themselves, around a single environment; ``vector_wrappers`` has its twin.

Left out on purpose: wrappers that Gymnasium has. Its own change the reward of a step; these change what each token is
paid, keep step reward and sum of token rewards equal, and book the difference in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from textgym.episode import Release, read_only
from textgym.info import release, release_info
from textgym.ledger import Ledger
from textgym.rules import episode_return

Transform: TypeAlias = Callable[[npt.NDArray[np.float32]], npt.ArrayLike]


@dataclass(frozen=True)
class Clip:
    """Clip each token's reward to [-limit, limit]; account ``clip``."""

    limit: float
    account: str = field(default="clip", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.limit < float("inf"):
            raise ValueError(f"limit is {self.limit}; it must be finite and above 0")

    def __call__(self, token_rewards: npt.NDArray[np.float32]) -> npt.ArrayLike:
        """Clip (T,) to (T,)."""
        return np.clip(token_rewards, -self.limit, self.limit)


@dataclass(frozen=True)
class Scale:
    """Multiply each token's reward by a factor; account ``scale``."""

    factor: float
    account: str = field(default="scale", kw_only=True)

    def __post_init__(self) -> None:
        if not abs(self.factor) < float("inf"):
            raise ValueError(f"factor is {self.factor}; it must be finite")

    def __call__(self, token_rewards: npt.NDArray[np.float32]) -> npt.ArrayLike:
        """Scale (T,) to (T,)."""
        return token_rewards.astype(np.float64) * self.factor


class TransformTokenRewards(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Rewrite the token rewards at their release: ``Clip``, ``Scale``, or any function (T,) -> (T,).

    Args:
        env: a textgym environment. Wrappers that change the step's reward go outside of this one.
        transform: float32 (T,) -> (T,), one episode's token rewards; 0 must stay 0 where the environment wrote.
        account: where the ledger books what the transform took; default: the transform's own name.
    """

    def __init__(self, env: gym.Env[Any, Any], transform: Transform, account: str | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, transform=transform, account=account)
        gym.Wrapper.__init__(self, env)
        self.transform = transform
        self.account = account_name(transform, account)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and rewrite what is released.

        Raises:
            ValueError: the transform returned something else than T finite numbers; names the episode.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        before = release(info)
        if before is None:
            return obs, reward, terminated, truncated, info
        check_sum(float(reward), before)
        after = rewrite(before, self.transform, self.account)
        return obs, episode_return(after), terminated, truncated, info | release_info(after, len(info["token_rewards"]))


def account_name(transform: Transform, account: str | None) -> str:
    """Name the account of a transform: as asked for, its own, or its function's name.

    Raises:
        TypeError: it is no function (a spec that went through JSON holds none), or a class that was not made an object.
    """
    if not callable(transform) or isinstance(transform, type):
        raise TypeError(f"transform is {transform!r}; give a function (T,) -> (T,), for example Clip(2.0)")
    return account or getattr(transform, "account", None) or getattr(transform, "__name__", type(transform).__name__)


def rewrite(before: Release, transform: Transform, account: str) -> Release:
    """Apply a transform to one release and book the difference.

    Raises:
        ValueError: the transform returned something else than T finite float32 numbers, or paid the environment's tokens.
    """
    after = np.asarray(transform(before.token_rewards), dtype=np.float64)
    if after.shape != before.token_rewards.shape:
        raise ValueError(
            f"the transform {account!r} turned {before.num_tokens} token rewards of episode {before.episode_id} into an "
            f"array of shape {after.shape}; return one number per token, shape ({before.num_tokens},)"
        )
    with np.errstate(over="ignore"):
        token_rewards = after.astype(np.float32)
    for token in np.flatnonzero(~np.isfinite(token_rewards) | ((token_rewards != 0) & ~before.agent_mask))[:1]:
        raise ValueError(
            f"the transform {account!r} paid {after[token]} on token {token} of episode {before.episode_id}; token rewards are "
            "finite float32 numbers, and 0 on tokens that the environment wrote"
        )
    taken = episode_return(before) - float(after.sum())
    # Only this stage's booking is checked here: how precise the others could be is no longer known.
    size = float(np.abs(before.token_rewards).sum(dtype=np.float64) + np.abs(after).sum())
    paid = float(token_rewards.sum(dtype=np.float64))
    Ledger(episode_return(before)).take(account, taken).check(paid, size, f"episode {before.episode_id}")
    ledger = before.ledger.take(account, taken)
    return replace(before, token_rewards=read_only(token_rewards), ledger=ledger)


def check_sum(reward: float, released: Release) -> None:
    """Raise ValueError where a step does not pay the sum of the token rewards: another wrapper changed it first."""
    total = episode_return(released)
    if not np.isclose(reward, total, rtol=1e-5, atol=1e-6):
        raise ValueError(
            f"the step pays {reward} but the token rewards of episode {released.episode_id} add up to {total}: a wrapper "
            "inside of this one changed the reward; put TransformTokenRewards inside of it"
        )
