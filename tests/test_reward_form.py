"""A task's reward in another form: the sum stays."""

import numpy as np
import pytest
from conftest import play_text

from textgym import RewardForm
from textgym.tasks.number_duel import NumberDuel


def test_reward_forms_keep_each_sum_and_change_the_rest():
    duel = NumberDuel()
    kinds = [(form, streams) for form in ("tokens", "scalar") for streams in (True, False)]
    forms = {kind: play_text(RewardForm(duel, *kind), "A: 12\nB: ca\n") for kind in kinds}
    original = play_text(duel, "A: 12\nB: ca\n")
    assert forms["tokens", True].token_rewards.tolist() == original.token_rewards.tolist()
    assert forms["tokens", True].streams.tolist() == original.streams.tolist()
    assert forms["tokens", False].token_rewards.tolist() == original.token_rewards.tolist()
    assert set(forms["tokens", False].streams) == {0}
    assert np.flatnonzero(forms["scalar", True].token_rewards).tolist() == []  # +1 - 1
    assert set(forms["scalar", True].streams) == {0}  # a sum is the whole text's
    assert len({float(release.token_rewards.sum()) for release in forms.values()}) == 1
    with pytest.raises(ValueError, match="'tokens' and 'scalar'"):
        RewardForm(duel, "dense")
