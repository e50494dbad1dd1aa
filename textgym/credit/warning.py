"""The warnings that a share of the score stands where the tokens that earned it do not see it.

Left out on purpose: knowing how an agent learns, and what streams its texts have. Who learns asks here.
"""

from __future__ import annotations

import warnings

from textgym.credit.assigner import Assigner


class NonCausalCreditWarning(UserWarning):
    """An assigner that is not causal is used with reward-to-go, and what it keeps on the last token does not repair that."""


class UnpaidStreamsWarning(UserWarning):
    """An assigner pays the last token alone, and the texts have several streams: all but that token's earn nothing."""


def warn_non_causal(assigner: Assigner | None, stacklevel: int = 2, *, several_streams: bool = False) -> None:
    """Warn where reward-to-go can erase what an assigner says: all of a token's reward may be booked before it.

    Measured in a table of two tokens, the second of which decides: with its reward booked on the first, P(right) stays at
    chance. A share that is kept on the last agent token repairs it in that token's stream only.

    Args:
        assigner: of a task that is learned with reward-to-go; None: it has none.
        stacklevel: as ``warnings.warn`` has it, of the caller.
        several_streams: whether there are texts of more than one stream.
    """
    if assigner is None or assigner.causal:
        return
    share = getattr(assigner, "last_share", 0.0)
    if share > 0 and not several_streams:
        return
    name = type(assigner).__name__
    kept = (
        f"; only that token's own stream sees the {share:g} of the score that is kept on the last agent token" if share else ""
    )
    others = (
        "or pay each stream for its own part at its end: spans=... of Shapley or PrefixDifference, the streams' parts"
        if several_streams
        else f"or keep part of the score on the last token (KeepLast({name}(...), share=0.5))"
    )
    warnings.warn(
        f"{name} is not causal and is learned with reward-to-go{' in several streams' if several_streams else ''}: a share "
        f"that is booked before the token that earned it is not seen by that token, so the signal can be erased{kept}. Learn "
        f'with whole-stream returns (PPOConfig(credit="whole_stream"), RLOO), {others}',
        NonCausalCreditWarning,
        stacklevel=stacklevel + 1,
    )


def warn_unpaid_streams(assigner: Assigner | None, stacklevel: int = 2) -> None:
    """Warn where an assigner pays nothing but the last agent token of texts that have several streams.

    Arguments as ``warn_non_causal``; ask for texts of more than one stream.
    """
    if assigner is None or getattr(assigner, "last_share", 0.0) < 1:
        return
    warnings.warn(
        f"{type(assigner).__name__} pays the whole score on the last agent token, and the texts have several streams: all but "
        "that token's stream earn nothing, whatever is said in them. Use an assigner that pays the parts (PrefixDifference, "
        "Shapley, with spans=...), or one stream (RewardForm(task, streams=False), textgym train --no-streams)",
        UnpaidStreamsWarning,
        stacklevel=stacklevel + 1,
    )
