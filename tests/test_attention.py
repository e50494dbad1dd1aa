import numpy as np
import pytest
from conftest import build_episode

from textgym.credit import Attention

EPISODE = build_episode("abcd", agent_mask=[True, False, True, True])


def test_a_share_is_laid_by_weight_and_the_rest_on_the_last_token():
    assigner = Attention(lambda episodes: [np.array([3.0, 5.0, 1.0, 0.0])], beta=0.5)
    assert assigner([8.0], [EPISODE])[0].tolist() == [3.0, 0, 1.0, 4.0]
    assert assigner.last_share == 0.5
    assert Attention(lambda episodes: [[1.0, 0, 1.0, 2.0]], beta=1.0)([8.0], [EPISODE])[0].tolist() == [2.0, 0, 2.0, 4.0]
    assert Attention(lambda episodes: [[1.0, 0, 1.0, 2.0]], beta=0.0)([8.0], [EPISODE])[0].tolist() == [0, 0, 0, 8.0]


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\); give one per response token, \(4,\)"):
        Attention(lambda episodes: [[1.0, 1.0]])([1.0], [EPISODE])
    with pytest.raises(ValueError, match="not all 0"):
        Attention(lambda episodes: [[0.0, 9.0, 0.0, 0.0]])([1.0], [EPISODE])
    with pytest.raises(ValueError, match="beta is 2"):
        Attention(lambda episodes: [], beta=2)
