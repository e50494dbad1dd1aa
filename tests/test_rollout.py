"""Laying finished episodes out: their order, what is cut, what is left out."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from textgym_agents.rollout import Played, lay_out

from textgym import Release
from textgym.ledger import Ledger


def played(order, prompt, response, *, released=True):
    """An episode whose tokens, log-probs, values and versions are its order, in a context of 9 tokens."""
    release = Release(
        episode_id=100 + order,
        slot=0,
        token_rewards=np.full(response, float(order), dtype=np.float32),
        streams=np.zeros(response, dtype=np.int64),
        agent_mask=np.ones(response, dtype=np.bool_),
        num_tokens=response,
        terminated=True,
        truncated=False,
        is_success=order == 1,
        group_id=7,
        criteria={},
        ledger=Ledger(float(order), {"clip": 1.0}),
    )
    column = torch.zeros(9)
    column[:response] = order
    ids = torch.zeros(9, dtype=torch.int64)
    ids[: prompt + response] = order
    return Played(order, prompt, ids, column, column, column.long(), 0.5 * order, release if released else None)


def test_episodes_stand_in_the_order_in_which_they_started_cut_to_the_longest():
    rollout = lay_out([played(3, 1, 2), played(1, 2, 4), played(2, 4, 1)], version=5)
    assert rollout.episode_id.tolist() == [101, 102, 103]
    assert rollout.ids.tolist() == [[1] * 6, [2] * 5 + [0], [3] * 3 + [0] * 3]
    assert rollout.logprobs.tolist() == rollout.values.tolist() == [[1, 1, 1, 1], [2, 0, 0, 0], [3, 3, 0, 0]]
    assert rollout.policy_version.tolist() == [[1, 1, 1, 1], [2, 0, 0, 0], [3, 3, 0, 0]]
    assert rollout.streams.tolist() == [[0] * 4, [0, -1, -1, -1], [0, 0, -1, -1]]
    assert rollout.agent_mask.sum(1).tolist() == rollout.num_tokens.tolist() == [4, 1, 2]
    assert rollout.final_values.tolist() == [0.5, 1.0, 1.5]
    assert rollout.is_success.tolist() == [True, False, False]
    assert (rollout.version, len(rollout)) == (5, 3)
    assert (rollout.ledger.asked, rollout.ledger.accounts) == (2.0, {"clip": 1.0})


def test_episodes_without_a_release_are_left_out():
    rollout = lay_out([played(1, 1, 2), played(2, 1, 5, released=False)], version=0)
    assert rollout.episode_id.tolist() == [101]
    assert rollout.ids.shape == (1, 3)
    with pytest.raises(ValueError, match="all 1 episodes of the collection were dropped"):
        lay_out([played(2, 1, 5, released=False)], version=0)


def test_a_rollout_is_frozen():
    with pytest.raises(FrozenInstanceError):
        lay_out([played(1, 1, 2)], version=0).version = 3
