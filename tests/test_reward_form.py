"""A task's reward in another form: the sum stays."""

import numpy as np
import pytest
from conftest import play_text

from textgym import MaskTable, RewardForm
from textgym.rules import Rules
from textgym.tasks.copying import Copying
from textgym.tasks.number_duel import NumberDuel
from textgym.tasks.sequential import Sequential


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


def test_a_task_keeps_its_action_masks_in_another_form_and_within_the_workaround():
    task = Copying(length=2, alphabet=2)
    letters = task.tokenizer.encode("ab").tolist()
    task.token_masks = np.isin(np.arange(task.tokenizer.vocab_size), letters)
    for wrapped in (
        RewardForm(task, "scalar"),
        RewardForm(RewardForm(task)),
        Sequential(task, lambda parts: [0.0] * len(parts)),
    ):
        masks = Rules(wrapped).masks
        assert masks is not None
        assert not masks.need_texts
        assert np.flatnonzero(masks.table.rows[-1]).tolist() == letters
    table = MaskTable(task.tokenizer.vocab_size)
    task.token_masks, number = table, table.add(task.token_masks)
    task.mask_numbers = lambda prompts, responses: [number] * len(prompts)
    assert Rules(RewardForm(task, "scalar")).masks.need_texts
    assert Rules(RewardForm(NumberDuel(), "scalar")).masks is None
