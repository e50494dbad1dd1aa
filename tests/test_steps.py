"""A release in steps of the agent, and advantages per stream in numpy, against hand-worked numbers and against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from textgym_agents import stream_gae

from textgym.integrations.steps import agent_steps, stream_advantages, successors


def test_only_the_agents_tokens_are_steps():
    rewards, streams = np.array([1, 0, 0, 2], np.float32), np.array([0, -1, 3, 0])
    paid, kept = agent_steps(rewards, streams, streams >= 0, 3)
    assert (paid.tolist(), kept.tolist()) == ([1, 0, 2], [0, 3, 0])


def test_a_lost_step_is_an_error_that_names_both_counts():
    with pytest.raises(ValueError, match="3 tokens of the agent but 2 steps"):
        agent_steps(np.zeros(3, np.float32), np.zeros(3, np.int64), np.ones(3, np.bool_), 2)


def test_the_successor_is_the_next_step_of_the_same_stream():
    assert successors(np.array([0, 1, 0, 0, 1, 7])).tolist() == [2, 4, 3, -1, -1, -1]


def test_a_return_stays_inside_its_stream():
    """Stream 0 earns 1 then 2, stream 1 earns -4: by hand, gamma 1/2."""
    rewards, streams = np.array([1.0, 0.0, 2.0, -4.0]), np.array([0, 1, 0, 1])
    assert stream_advantages(rewards, np.zeros(4), streams, gamma=0.5).tolist() == [2.0, -2.0, 2.0, -4.0]


def test_only_the_episodes_last_step_sees_the_final_value():
    rewards, values, streams = np.zeros(3), np.full(3, 10.0), np.array([0, 1, 0])
    # Step 1 ends its stream; step 2 ends the episode, and is worth what the final observation is.
    assert stream_advantages(rewards, values, streams, 7.0, gae_lambda=0.0).tolist() == [0.0, -10.0, -3.0]


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=12),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_it_is_the_recursion_that_the_agents_have_in_torch(steps, gamma, gae_lambda, truncated):
    rewards, values, streams = (np.array(column) for column in zip(*steps, strict=True))
    rows = [torch.as_tensor(column)[None] for column in (rewards, values, streams)]
    final = torch.tensor([2.0], dtype=torch.float64)
    mask, cut = torch.ones(1, len(steps), dtype=torch.bool), torch.tensor([truncated])
    expected, _ = stream_gae(*rows, mask, final, cut, gamma=gamma, gae_lambda=gae_lambda)
    got = stream_advantages(rewards, values, streams, 2.0 * truncated, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(got, expected[0].numpy(), rtol=1e-4, atol=1e-4)
