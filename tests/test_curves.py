import numpy as np
import pytest
from suite_kit import learning_row

from textgym.suite.curves import at_tokens, band, equal_tokens

SHORT = learning_row("copying", "scalar", 0, [0.0, 0.4, 0.6], tokens=(0, 100, 150))
LONG = learning_row("copying", "scalar", 1, [0.2, 0.4, 0.8], tokens=(0, 100, 200))
PLAYS_NOTHING = learning_row("copying", "dense", 0, [0.9], tokens=(0,), agent="cloning")


def test_runs_are_compared_as_far_as_all_went():
    assert equal_tokens([LONG, SHORT]) == 150
    assert equal_tokens([LONG, PLAYS_NOTHING]) == 200
    assert equal_tokens([PLAYS_NOTHING]) == equal_tokens([]) == 0


def test_a_curve_is_read_between_its_points_by_hand():
    assert at_tokens(LONG, "score", 150) == pytest.approx(0.6)
    assert at_tokens(LONG, "reward_calls", 150) == 15
    assert at_tokens(LONG, "score", np.array([0.0, 50.0, 200.0])) == pytest.approx([0.2, 0.3, 0.8])
    assert at_tokens(PLAYS_NOTHING, "score", np.array([0.0, 1000.0])).tolist() == [0.9, 0.9]


def test_no_run_is_drawn_out_beyond_its_end():
    with pytest.raises(ValueError, match="has 150 tokens; it is asked for 151"):
        at_tokens(SHORT, "score", 151)


def test_a_band_has_the_mean_of_two_runs_and_their_ends():
    curve = band([SHORT, LONG], 150, points=4)
    assert curve.tokens.tolist() == [0, 50, 100, 150]
    assert curve.score == pytest.approx([0.1, 0.25, 0.4, 0.6])
    assert curve.low == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert curve.high == pytest.approx([0.2, 0.3, 0.4, 0.6])
    assert curve.reward_calls.tolist() == [0, 5, 10, 15]
