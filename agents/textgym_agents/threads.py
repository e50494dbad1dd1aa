"""How many threads a small pass runs on.

Left out on purpose: timing passes to find out. Which tokens a run samples may not hang on what else the machine was doing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_SMALL = 2**25  # multiplications of one product. Two sleeping threads lost at 2**23 of them and won at 2**28; between, a guess
_AS_IT_IS = nullcontext()


def small_pass(products: float) -> AbstractContextManager[None]:
    """Run the block on one torch thread where waking others costs more than they bring.

    With ``OMP_WAIT_POLICY=PASSIVE``, as on shared machines, threads that wait sleep: a product of 32 rows with a 256 x 1,024
    matrix took 167 us on two threads and 76 us on one. Where threads spin, and on other devices, nothing is changed.

    Args:
        products: multiplications of a typical matrix product of the pass.
    """
    if torch.get_num_threads() == 1 or products >= _SMALL or os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        return _AS_IT_IS
    return _one_thread()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
