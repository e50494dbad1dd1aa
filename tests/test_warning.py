import warnings

import pytest

from textgym.credit import Attention, KeepLast, Last, NonCausalCreditWarning, Uniform, warn_non_causal


def test_a_share_that_reward_to_go_can_erase_is_warned_about_with_both_remedies_F08():
    with pytest.warns(NonCausalCreditWarning, match=r'credit="whole_stream".*KeepLast\(Uniform'):
        warn_non_causal(Uniform())


@pytest.mark.parametrize("assigner", [None, Last(), KeepLast(Uniform(), 0.1), Attention(lambda e: [], beta=0.5)])
def test_what_keeps_a_share_on_the_last_token_or_is_causal_is_not_warned_about(assigner):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_non_causal(assigner)


def test_all_of_it_laid_by_attention_is_warned_about():
    with pytest.warns(NonCausalCreditWarning, match="Attention"):
        warn_non_causal(Attention(lambda e: [], beta=1.0))
