"""Which store the vector door's ``output`` and ``device`` ask for.

Left out on purpose: the stores, ``store`` and ``torch_store``. Only who asks for torch has it imported.
"""

from __future__ import annotations

from typing import Any

from textgym.rules import Rules
from textgym.store import NumpyStore


def make_store(rules: Rules, num_envs: int, output: str, device: Any) -> Any:
    """Make the store of N texts.

    Raises:
        ValueError: there is no such output, or it does not go with the device.
    """
    if output == "numpy":
        if str(device) != "cpu":
            raise ValueError(f"device is {str(device)!r} with output='numpy'; numpy lives on the CPU, use output='torch'")
        return NumpyStore(rules, num_envs)
    if output == "torch":
        from textgym.torch_store import HostStore, TorchStore  # the one place where textgym asks for torch

        return HostStore(rules, num_envs) if str(device) == "cpu" else TorchStore(rules, num_envs, device)
    raise ValueError(f"output is {output!r}; allowed are 'numpy' and 'torch'")
