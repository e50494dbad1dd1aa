"""Partitions that a task gives, checked."""

import pytest
import torch
from conftest import build_episode

from textgym.streams import check_streams


def test_streams_are_minus_one_where_the_environment_wrote():
    episode = build_episode("abc", agent_mask=[True, False, True])
    assert check_streams([[0, 9, 1]], [episode])[0].tolist() == [0, -1, 1]


@pytest.mark.parametrize("streams", [[[0] * 4], [[0.0] * 5], [[0, 0, -1, 0, 0]], [[True] * 5], [], 3, [[0] * 5] * 2])
def test_wrong_streams_are_refused(streams):
    with pytest.raises(ValueError, match="stream"):
        check_streams(streams, [build_episode()])


def test_streams_may_come_as_one_tensor():
    episodes = [build_episode(), build_episode()]
    assert [s.tolist() for s in check_streams(torch.ones(2, 5, dtype=torch.int64), episodes)] == [[1] * 5] * 2
