"""The warning that a share is booked where reward-to-go does not show it to the token that earned it.

Left out on purpose: knowing how an agent learns. Who learns with reward-to-go asks here.
"""

from __future__ import annotations

import warnings

from textgym.credit.assigner import Assigner


class NonCausalCreditWarning(UserWarning):
    """An assigner that is not causal is used with reward-to-go, and keeps nothing on the last token."""


def warn_non_causal(assigner: Assigner | None, stacklevel: int = 2) -> None:
    """Warn where reward-to-go can erase what an assigner says: all of a token's reward may be booked before it.

    Measured in a table of two tokens, the second of which decides: with its reward booked on the first, P(right) stays at
    chance.

    Args:
        assigner: of a task that is about to be learned with reward-to-go; None: it has none.
        stacklevel: as ``warnings.warn`` has it, of the caller.
    """
    if assigner is None or assigner.causal or getattr(assigner, "last_share", 0.0) > 0:
        return
    name = type(assigner).__name__
    warnings.warn(
        f"{name} is not causal and is learned with reward-to-go: a share that is booked before the token that earned it is not "
        'seen by that token, so the signal can be erased. Learn with whole-stream returns (PPOConfig(credit="whole_stream")), '
        f"or keep part of the score on the last token (KeepLast({name}(...), share=0.5))",
        NonCausalCreditWarning,
        stacklevel=stacklevel + 1,
    )
