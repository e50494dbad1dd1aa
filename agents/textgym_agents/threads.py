"""How many threads a small pass runs on, and two halves of one on two.

Left out on purpose: timing passes to find out. Which tokens a run samples may not hang on what else the machine was doing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

_SMALL = 2**25  # multiplications of one product. Two sleeping threads lost at 2**23 of them and won at 2**28; between, a guess
_AS_IT_IS = nullcontext()
_HALVED = 2**21  # multiplications from which halves were seen to pay: of 32 rows of width 128
T = TypeVar("T")


def small_pass(products: float) -> AbstractContextManager[None]:
    """Run the block on one torch thread where waking others costs more than they bring.

    With ``OMP_WAIT_POLICY=PASSIVE``, as on shared machines, threads that wait sleep: a product of 32 rows with a 256 x 1,024
    matrix took 167 us on two threads and 76 us on one. Where threads spin, and on other devices, nothing is changed.

    Args:
        products: multiplications of a typical matrix product of the pass.
    """
    return one_thread() if torch.get_num_threads() > 1 and _is_small(products) else _AS_IT_IS


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one torch thread."""
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


def halves_pay(products: float) -> bool:
    """Whether two halves of a small pass on two threads of Python are quicker than the whole on torch's own.

    Torch's threads meet after every operation, these once. Measured on two cores; where more threads wait for work without
    sleeping, a pass is left to them.

    Args:
        products: multiplications of a typical matrix product of the pass.
    """
    threads = torch.get_num_threads()
    return _HALVED <= products < _SMALL and threads > 1 and (threads == 2 or _sleeping())


def side_by_side(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """Do two things at once, without gradients, each on one torch thread: the second on a thread beside this one."""
    inference = torch.is_inference_mode_enabled()

    def beside() -> T:
        with torch.inference_mode() if inference else torch.no_grad():
            return second()

    with one_thread():
        task = _beside().submit(beside)
        try:
            done = first()
        finally:
            wait([task])  # whatever happens here, nothing of it goes on afterwards
    return done, task.result()


@cache
def _beside() -> ThreadPoolExecutor:
    """Start the thread, once; a forked process starts its own."""
    return ThreadPoolExecutor(1, "textgym-beside", partial(torch.set_num_threads, 1))


if hasattr(os, "register_at_fork"):  # not where processes do not fork
    os.register_at_fork(after_in_child=_beside.cache_clear)


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
    return products < _SMALL and _sleeping()


def _sleeping() -> bool:
    return os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
