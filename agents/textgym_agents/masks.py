"""Attention masks by layer kind: which tokens of a row a token may attend to.

Left out on purpose: building them per model. A Hugging Face model takes ready masks as they are, one tensor, or one per
layer kind where it has several; so cached rows and packed rows need no change of any model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"
Windows = Mapping[str, int | None]
"""Layer kind, as a model's ``layer_types`` names it -> tokens that a token sees, itself included; None: all before it."""


def layer_windows(config: Any, context_length: int) -> dict[str, int | None]:
    """Read the layer kinds of a model's (text) config. A window that holds a whole text is no restriction.

    Raises:
        ValueError: a kind is neither full nor sliding attention.
    """
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None) or [FULL if window is None else SLIDING]
    for kind in sorted(set(kinds) - {FULL, SLIDING}):
        raise ValueError(f"it has layers of kind {kind!r}; the slot cache holds {FULL} and {SLIDING}")
    return {
        kind: window if kind == SLIDING and window is not None and window < context_length else None
        for kind in dict.fromkeys(kinds)
    }


def attention_masks(
    queries: Tensor, keys: Tensor, windows: Windows, dtype: torch.dtype, same: Tensor | None = None
) -> Tensor | dict[str, Tensor]:
    """Make the additive masks (B, 1, q, k): 0 where a token sees another, the lowest number of ``dtype`` elsewhere.

    Token at place i sees the places j with ``j <= i``, ``i - j < window`` and, in packed rows, of the same text.

    Args:
        queries: int64 (B, q), the place of each new token in its row.
        keys: int64 (k,) or (B, k), the places that may be seen.
        windows: see ``Windows``.
        dtype: the model's.
        same: bool (B, q, k), True where both are of one text; None: each row is one text.

    Returns:
        One tensor for a model with one layer kind, else one per kind.
    """
    queries, keys = queries[:, :, None], keys.reshape(-1, 1, keys.shape[-1])
    later = keys > queries if same is None else (keys > queries) | ~same
    masks = {}
    for kind, window in windows.items():
        hidden = later if window is None else later | (queries - keys >= window)
        lowest = torch.finfo(dtype).min
        # A product of truth values and a number has torch's default type.
        mask = hidden * lowest if dtype == torch.get_default_dtype() else hidden.to(dtype).mul_(lowest)
        masks[kind] = mask[:, None]
    return masks if len(masks) > 1 else next(iter(masks.values()))
