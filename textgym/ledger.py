"""Where a reward went: what was asked for equals what is paid plus what named accounts took.

Left out on purpose: a place where amounts can vanish. Every stage between a user's reward and a learner's buffer books
the difference that it makes under a name of its own, and ``check`` adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Ledger:
    """``asked == paid + sum(accounts)``, all of them sums over one episode (or means over many)."""

    asked: float = 0.0
    """What the user's reward came to, before weights."""
    accounts: Mapping[str, float] = field(default_factory=dict)
    """What each stage took from it; negative where it added."""

    def take(self, account: str, amount: float) -> Ledger:
        """Book ``amount`` under ``account``, on top of what is there."""
        return Ledger(self.asked, {**self.accounts, account: self.accounts.get(account, 0.0) + amount})

    def missing(self, paid: float) -> float:
        """Give what of ``asked`` is neither paid nor in an account."""
        return self.asked - paid - sum(self.accounts.values())

    def check(self, paid: float, size: float, where: str) -> None:
        """Add up.

        Args:
            paid: sum of the token rewards.
            size: sum of their absolute values and those of the accounts; float32 rounds in proportion to it.
            where: whose ledger it is, for the message.

        Raises:
            ValueError: the two sides differ by more than 1e-5, or 1e-5 of ``size`` where that is more.
        """
        missing = self.missing(paid)
        if not abs(missing) <= TOLERANCE * max(1.0, size):
            booked = ", ".join(f"{name} {amount:g}" for name, amount in self.accounts.items()) or "none"
            raise ValueError(
                f"the ledger of {where} does not add up: {self.asked:g} was asked for, {paid:g} is paid, accounts: {booked}; "
                f"{missing:g} is missing. A stage that changes rewards books the difference (Ledger.take)"
            )

    @staticmethod
    def mean(ledgers: list[Ledger]) -> Ledger:
        """Average over episodes; an account that an episode lacks counts 0."""
        names = dict.fromkeys(name for ledger in ledgers for name in ledger.accounts)
        count = max(1, len(ledgers))
        accounts = {name: sum(ledger.accounts.get(name, 0.0) for ledger in ledgers) / count for name in names}
        return Ledger(sum(ledger.asked for ledger in ledgers) / count, accounts)
