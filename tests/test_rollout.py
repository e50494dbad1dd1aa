"""Laying finished episodes out: their order, what is cut, what is left out."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from textgym_agents import Step
from textgym_agents.rollout import lay_out
from textgym_agents.tape import Ended, Tape

from textgym import Release
from textgym.ledger import Ledger


def play(*episodes, version, dropped=()):
    """Lay out episodes (order, tokens of prompt and response), all begun in one step, in a context of 9 tokens.

    Their tokens, log-probs, values and versions are their order.
    """
    tape, finished, released = Tape(len(episodes), torch.device("cpu")), [], {}
    tape.begin(np.arange(len(episodes)))
    for row in range(max(response for _, _, response in episodes)):
        running = np.array([slot for slot, episode in enumerate(episodes) if episode[2] > row])
        figures = torch.tensor([float(episodes[slot][0]) for slot in running])
        tape.write(running, Step(figures.long(), figures, -figures), version=10 + row)
    for slot, (order, prompt, response) in enumerate(episodes):
        ids = torch.full((1, 9), -1)
        ids[0, : prompt + response] = order
        one = (np.array([x]) for x in (order, 100 + order, slot, 0, response, prompt))
        finished.append(Ended(*one, final_value=np.array([0.5 * order], dtype=np.float32), ids=ids))
        released[100 + order] = Release(
            episode_id=100 + order,
            slot=slot,
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
    return lay_out(finished, {i: release for i, release in released.items() if i not in dropped}, tape, version)


def test_episodes_stand_in_the_order_in_which_they_started_cut_to_the_longest():
    rollout = play((3, 1, 2), (1, 2, 4), (2, 4, 1), version=5)
    assert rollout.episode_id.tolist() == [101, 102, 103]
    assert rollout.ids.tolist() == [[1] * 6, [2] * 5 + [0], [3] * 3 + [0] * 3]
    assert rollout.logprobs.tolist() == (-rollout.values).tolist() == [[1, 1, 1, 1], [2, 0, 0, 0], [3, 3, 0, 0]]
    assert rollout.policy_version.tolist() == [[10, 11, 12, 13], [10, 0, 0, 0], [10, 11, 0, 0]]
    assert rollout.token_rewards.tolist() == rollout.logprobs.tolist()
    assert rollout.streams.tolist() == [[0] * 4, [0, -1, -1, -1], [0, 0, -1, -1]]
    assert rollout.agent_mask.sum(1).tolist() == rollout.num_tokens.tolist() == [4, 1, 2]
    assert rollout.final_values.tolist() == [0.5, 1.0, 1.5]
    assert rollout.is_success.tolist() == [True, False, False]
    assert (rollout.version, len(rollout)) == (5, 3)
    assert (rollout.ledger.asked, rollout.ledger.accounts) == (2.0, {"clip": 1.0})


def test_episodes_without_a_release_are_left_out():
    rollout = play((1, 1, 2), (2, 1, 5), version=0, dropped=[102])
    assert rollout.episode_id.tolist() == [101]
    assert rollout.ids.shape == (1, 3)
    with pytest.raises(ValueError, match="all 1 episodes of the collection were dropped"):
        play((2, 1, 5), version=0, dropped=[102])


def test_a_rollout_is_frozen():
    with pytest.raises(FrozenInstanceError):
        play((1, 1, 2), version=0).version = 3
