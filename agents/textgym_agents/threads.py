"""How many threads a small pass runs on.

Left out on purpose: timing passes to find out. Which tokens a run samples may not hang on what else the machine was doing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

_SMALL = 2**25  # multiplications of one product. Two sleeping threads lost at 2**23 of them and won at 2**28; between, a guess
_AS_IT_IS = nullcontext()


def small_pass(products: float) -> AbstractContextManager[None]:
    """Run the block on one torch thread where waking others costs more than they bring.

    With ``OMP_WAIT_POLICY=PASSIVE``, as on shared machines, threads that wait sleep: a product of 32 rows with a 256 x 1,024
    matrix took 167 us on two threads and 76 us on one. Where threads spin, and on other devices, nothing is changed.

    Args:
        products: multiplications of a typical matrix product of the pass.
    """
    return _one_thread() if torch.get_num_threads() > 1 and _is_small(products) else _AS_IT_IS


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def small_backward(products: float, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Let the backward pass that comes through ``tensors`` run on one torch thread, where ``small_pass`` would.

    Four minibatches of 1,024 tokens of a 2 x 64 GPT-2 shape, forward and backward: 121 ms on two sleeping threads, 95 on one.
    A backward pass that raises leaves torch on one thread.

    Args:
        products: as in ``small_pass``.
        tensors: what the pass gave. Returned as they are, or where it is small, as others with the same numbers.
    """
    return _OneThread.apply(*tensors) if torch.is_grad_enabled() and _is_small(products) else tensors


class _OneThread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.autograd.Variable._execution_engine.queue_callback(lambda: torch.set_num_threads(threads))
        return grads


def _is_small(products: float) -> bool:
    return products < _SMALL and os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
