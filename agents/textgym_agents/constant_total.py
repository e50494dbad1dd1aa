"""Look whether a collection can teach: its texts may all earn the same, or their credit stand where its tokens cannot see it.

Left out on purpose: choosing streams. Which tokens belong together is the task's to say.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import torch

from textgym.credit import Assigner, warn_non_causal, warn_unpaid_streams
from textgym.rules import Rules
from textgym_agents.groups import rewards_to_go, stream_sums
from textgym_agents.rollout import Rollout


class ConstantTotalWarning(UserWarning):
    """The texts of a collection share out one and the same total, in one stream."""


def assigner_of(envs: gym.vector.VectorEnv[Any, Any, Any]) -> Assigner | None:
    """Find the assigner of a vector environment's task, if it has one."""
    rules = getattr(envs.unwrapped, "rules", None)
    return rules.assigner if isinstance(rules, Rules) else None


def warn_constant_total(rollout: Rollout) -> None:
    """Warn where all texts of a collection earn the same in total, share it out in different ways, and have one stream.

    The first part of such a text learns nothing: its reward-to-go holds the other parts' rewards, which cancel its own. A
    total that is always shared out alike is no such case: a task that is solved, or has not paid yet.
    """
    mask, rewards = rollout.agent_mask, rollout.token_rewards.double()
    totals = rewards.sum(1)
    size = rewards.abs().sum(1).max()
    if len(rollout) < 2 or (totals - totals[0]).abs().max() > 1e-5 * size or len(rollout.streams[mask].unique()) > 1:
        return
    shared = [row[row != 0] for row in rewards.masked_fill(~mask, 0)]
    shared = [parts for parts in shared if len(parts) > 1]
    if all(torch.equal(parts, shared[0]) for parts in shared):
        return
    warnings.warn(
        f"every text of the collection earns {float(totals[0]):g} in total, shared out in different ways, and there is one "
        "stream: a sum says nothing then, and reward-to-go nothing of all parts but the last. Choose streams: "
        "Span(..., stream=k), task.streams or streams_fn put the parts that share a constant total into streams of their own",
        ConstantTotalWarning,
        stacklevel=3,
    )


def warn_credit(assigner: Assigner | None, rollout: Rollout, *, reward_to_go: bool) -> None:
    """Warn where an assigner's shares stand where the tokens that earned them do not see them (``textgym.credit.warning``).

    Args:
        assigner: the task's; None: it has none.
        rollout: what was collected: the streams of its texts, and whether anything is booked before the last token of its
            stream, count. A share at the end of its stream is seen by all of the stream, as whole-stream returns are.
        reward_to_go: whether a token learns from the rewards of its stream from itself on, and not from all of them.
    """
    if assigner is None:
        return
    mask, streams = rollout.agent_mask, rollout.streams
    first = streams.masked_fill(~mask, torch.iinfo(streams.dtype).max).amin(1, keepdim=True)
    several = bool((mask & (streams != first)).any())
    if several:
        warn_unpaid_streams(assigner, stacklevel=4)
    tables = rollout.token_rewards.double(), streams, mask
    if reward_to_go and (rewards_to_go(*tables) - stream_sums(*tables)).abs().max() > 1e-5 * tables[0].abs().max():
        warn_non_causal(assigner, stacklevel=4, several_streams=several)
