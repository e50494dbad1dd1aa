"""Figures of a collection: what a learner reports of it, and the ledger of its rewards.

Left out on purpose: figures of the losses, which the learner has at hand where it takes its steps.
"""

from __future__ import annotations

from torch import Tensor

from textgym.ledger import Ledger
from textgym_agents.rollout import Rollout


def summary(rollout: Rollout) -> dict[str, float]:
    """Count the episodes; give means over them, and over the agent's tokens: how old they were when they were learned from."""
    ages = (rollout.version - rollout.policy_version)[rollout.agent_mask]
    figures = {
        "episodes": len(rollout),
        "return": float(rollout.token_rewards.sum(1).mean()),
        "success": float(rollout.is_success.float().mean()),
        "tokens": float(rollout.num_tokens.float().mean()),
        "truncated": float(rollout.truncated.float().mean()),
        "staleness": float(ages.float().mean()),
    }
    if rollout.ref_logprobs is not None:
        figures["ref_kl"] = float((rollout.logprobs - rollout.ref_logprobs).sum(1).mean())
    return figures


def accounts(ledger: Ledger, rollout: Rollout, rewards: Tensor) -> dict[str, float]:
    """Give the collection's ledger, means per episode: what the task asked for, what each stage took, what is learned from.

    Args:
        ledger: the collection's, with the stages of the learner booked.
        rollout: the collection.
        rewards: float (E, T), what is learned from.

    Raises:
        ValueError: it does not add up.
    """
    learned = float(rewards.double().sum()) / len(rollout)
    size = float(rollout.token_rewards.double().abs().sum() + rewards.double().abs().sum()) / len(rollout)
    ledger.check(learned, size + sum(abs(amount) for amount in ledger.accounts.values()), "the collection")
    taken = {f"ledger/{name}": amount for name, amount in ledger.accounts.items()}
    return {"ledger_asked": ledger.asked, **taken, "ledger_learned": learned}
