import warnings

import pytest

from textgym.credit import (
    Attention,
    KeepLast,
    Last,
    NonCausalCreditWarning,
    PrefixDifference,
    Uniform,
    UnpaidStreamsWarning,
    warn_non_causal,
    warn_unpaid_streams,
)


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


def test_in_several_streams_a_share_on_the_last_token_repairs_nothing_and_is_not_advised():
    with pytest.warns(
        NonCausalCreditWarning, match=r"several streams.*only that token's own stream sees the 0\.1.*spans="
    ) as said:
        warn_non_causal(KeepLast(Uniform(), 0.1), several_streams=True)
    assert "share=0.5" not in str(said[0].message)
    with pytest.warns(NonCausalCreditWarning, match=r"several streams.*can be erased\. Learn"):
        warn_non_causal(Uniform(), several_streams=True)


def test_what_pays_the_last_token_alone_leaves_other_streams_unpaid():
    with pytest.warns(UnpaidStreamsWarning, match="Last pays the whole score on the last agent token"):
        warn_unpaid_streams(Last())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for assigner in (None, Uniform(), KeepLast(Uniform(), 0.5), PrefixDifference()):
            warn_unpaid_streams(assigner)
        warn_non_causal(PrefixDifference(), several_streams=True)
