"""Which rows take several tokens together in one pass: padding against passes.

Left out on purpose: running them, which is ``decode``'s, and what texts share, which is ``prefix``'s.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def groups_by_length(
    counts: npt.NDArray[np.int64], waste: float = 0.25, least: int = 128, most: int = 8192
) -> list[npt.NDArray[np.int64]]:
    """Split rows into groups of similar lengths, to be padded to the longest of their group.

    Args:
        counts: int64 (n,), new tokens of each row.
        waste: most padding of a group, as a share of its tokens with padding.
        least: tokens, padding included, up to which a group grows whatever it wastes: a pass has a price of its own.
        most: tokens, padding included, of a group of more than one row: what a pass holds in memory.

    Returns:
        Indices into ``counts``, longest first.
    """
    groups: list[list[int]] = []
    longest = useful = 0
    for i in np.argsort(-counts, kind="stable").tolist():
        padded = longest * (len(groups[-1]) + 1) if groups else 0
        if not groups or padded > most or (padded > least and padded - useful - counts[i] > waste * padded):
            groups.append([])
            longest, useful = int(counts[i]), 0
        groups[-1].append(i)
        useful += int(counts[i])
    return [np.array(group, dtype=np.int64) for group in groups]
