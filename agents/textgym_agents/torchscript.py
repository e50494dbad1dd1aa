"""A function of TorchScript, made from its source: one call runs all of it, while other threads of Python run theirs.

Left out on purpose: compiling operations. The interpreter calls the same ones in the same order, so every number is the same;
it runs without the executor's optimisations, which take products apart and leave out sums that nobody reads. torch calls
TorchScript deprecated: who uses this goes on without it where a torch has none.
"""

from __future__ import annotations

from typing import Any

import torch


class TorchScript:
    """A function of TorchScript.

    Args:
        source: of it, and of those that it calls.
        name: which.

    Raises:
        RuntimeError: TorchScript does not know something in it.
    """

    def __init__(self, source: str, name: str) -> None:
        self._function = getattr(torch.jit.CompilationUnit(source), name)

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        before = torch._C._get_graph_executor_optimize()
        torch._C._set_graph_executor_optimize(False)  # of this thread
        try:
            return self._function(*args)
        finally:
            torch._C._set_graph_executor_optimize(before)
