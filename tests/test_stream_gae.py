import numpy as np
import pytest
import textgym_agents
import torch
from hypothesis import given
from hypothesis import strategies as st

from textgym.integrations.stream_gae import stream_gae


def test_two_speakers_by_hand():
    """Tokens of streams 0 1 0 1; rewards 0 0 1 -1, values 0, .5, 0, 0; gamma .5, lambda 1."""
    rewards, values = np.array([0.0, 0.0, 1.0, -1.0]), np.array([0.0, 0.5, 0.0, 0.0])
    streams, texts = np.array([0, 1, 0, 1]), np.zeros(4, dtype=np.int64)
    assert stream_gae(rewards, values, streams, texts, gamma=0.5).tolist() == [0.5, -1.0, 1.0, -1.0]


def test_a_text_never_sees_the_next_one():
    rewards, zero = np.array([0.0, 1.0, 0.0, 5.0]), np.zeros(4)
    texts = np.array([0, 0, 1, 1])
    assert stream_gae(rewards, zero, np.zeros(4, np.int64), texts).tolist() == [1.0, 1.0, 5.0, 5.0]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from([(1.0, 1.0), (0.9, 0.95), (0.5, 0.0), (0.0, 1.0)]),
    st.integers(0, 2**31),
)
def test_equals_the_agents_own(lengths, kinds, factors, seed):
    """Truncation is a reward here, a final value there."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), max(lengths))
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    # the environment writes some tokens, but never the last
    mask &= (rng.random(shape) < 0.8) | (np.arange(shape[1]) == np.array(lengths)[:, None] - 1)
    rewards, values, final = rng.normal(size=shape) * mask, rng.normal(size=shape), rng.normal(size=shape[0])
    streams, truncated = rng.integers(kinds, size=shape), rng.random(shape[0]) < 0.5
    gamma, gae_lambda = factors
    expected, _ = textgym_agents.stream_gae(
        *map(torch.from_numpy, (rewards, values, streams, mask, final, truncated)), gamma=gamma, gae_lambda=gae_lambda
    )
    rewards[np.arange(shape[0]), np.array(lengths) - 1] += gamma * final * truncated
    texts = np.nonzero(mask)[0]
    found = stream_gae(rewards[mask], values[mask], streams[mask], texts, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(found, expected.numpy()[mask], atol=1e-12)


def test_errors_name_the_array_and_the_token():
    two, kinds = np.zeros(2), np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match=r"streams has shape \(1,\), expected \(2,\)"):
        stream_gae(two, two, kinds[:1], kinds)
    with pytest.raises(ValueError, match=r"values of token 1 \(text 0\) is nan"):
        stream_gae(two, np.array([0, np.nan]), kinds, kinds)
