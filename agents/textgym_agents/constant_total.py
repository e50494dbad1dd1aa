"""Look whether a collection can teach: its texts may all earn the same, or their credit stand where its tokens cannot see it.

Left out on purpose: choosing streams. Which tokens belong together is the task's to say.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from textgym.credit import Assigner, warn_non_causal, warn_unpaid_streams
from textgym.rules import Rules
from textgym_agents.groups import rewards_to_go, stream_sums
from textgym_agents.rollout import Rollout

NEARLY = 0.9
"""Share of a collection's texts, at least."""


class ConstantTotalWarning(UserWarning):
    """The texts of a collection share out one and the same total, in one stream."""


def assigner_of(envs: gym.vector.VectorEnv[Any, Any, Any]) -> Assigner | None:
    """Find the assigner of a vector environment's task, if it has one."""
    rules = getattr(envs.unwrapped, "rules", None)
    return rules.assigner if isinstance(rules, Rules) else None


def warn_constant_total(rollout: Rollout) -> None:
    """Warn where the texts of a first collection earn the same in total, share it out in different ways, and have one stream.

    The first part of such a text learns nothing: its reward-to-go holds the other parts' rewards, which cancel its own. Either
    all texts earn the same, some perhaps nothing at all, or ``NEARLY`` all do and are paid, and the others broke some form.
    Where the whole total stands on one token (the winner takes all) it is above 0, and stands at different places, counted from
    the start and from the end of the text, with tokens behind it.

    A total that is always shared out alike is no such case: a task that has not paid yet. Ask before anybody has learned: the
    texts of a task that is solved may share their total out in different ways too. Not seen: one negative reward per text, at
    different places, because a penalty for the first mistake looks like that.
    """
    mask, rewards = rollout.agent_mask, rollout.token_rewards.double()
    if len(rollout) < 2 or len(rollout.streams[mask].unique()) > 1:
        return
    rewards = rewards.masked_fill(~mask, 0)
    totals, paid = rewards.sum(1), (rewards != 0).sum(1)
    total = totals.median()
    alike = (totals - total).abs() <= 1e-5 * rewards.abs().sum(1).max()
    if not alike.all() and float((alike & (paid > 0)).double().mean()) < NEARLY:
        return
    shared = [row[row != 0] for row in rewards[alike & (paid > 1)]]
    if all(torch.equal(parts, shared[0]) for parts in shared) and not _one_reward_moves(rewards, mask, alike & (paid == 1)):
        return
    part = float(alike.double().mean())
    warnings.warn(
        f"{'every text of the collection earns' if part == 1 else f'{part:.0%} of the texts of the collection earn'} "
        f"{float(total):g} in total, shared out in different ways, and there is one stream: a sum says nothing then, and "
        "reward-to-go nothing of all parts but the last. Choose streams: Span(..., stream=k), task.streams or streams_fn put "
        "the parts that share a constant total into streams of their own",
        ConstantTotalWarning,
        stacklevel=3,
    )


def _one_reward_moves(rewards: Tensor, mask: Tensor, texts: Tensor) -> bool:
    """Say whether nearly all are of these texts (bool (E,)), whose one reward is above 0, here in some and there in others."""
    if float(texts.double().mean()) < NEARLY or not (rewards[texts].sum(1) > 0).all():
        return False
    tokens, paid = mask[texts].long(), rewards[texts] != 0
    place = (tokens.cumsum(1) * paid).sum(1).double()  # from 1
    behind = tokens.sum(1) - place
    most = place.new_tensor([1 - NEARLY, NEARLY])
    (early, late), (near, far) = place.quantile(most), behind.quantile(most)
    return bool(early < late and near < far and far >= 2)


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
