import pytest
import torch
from agent_kit import build_rollout
from textgym_agents.figures import accounts, summary


def test_figures_are_means_over_episodes_and_staleness_over_the_agents_tokens():
    figures = summary(build_rollout())
    assert figures.pop("staleness") == 1.0  # 2, 0 and 1 old
    assert figures == {"episodes": 2, "return": 1.0, "success": 0.5, "tokens": 2.0, "truncated": 0.5}
    reference = torch.tensor([[-1.5, 0.0, -2.0], [-2.0, 0.0, 0.0]])
    assert summary(build_rollout(ref_logprobs=reference))["ref_kl"] == pytest.approx((0.5 - 1.0) / 2)


def test_the_ledger_adds_up_or_is_refused():
    played = build_rollout()
    halved = played.token_rewards / 2
    figures = accounts(played.ledger.take("scale", 0.5), played, halved)
    assert figures == {"ledger_asked": 1.0, "ledger/scale": 0.5, "ledger_learned": 0.5}
    with pytest.raises(ValueError, match="ledger of the collection does not add up"):
        accounts(played.ledger, played, halved)
