"""The processor that this runs on, by name.

Left out on purpose: trying out what is fast on it. Which tokens a run samples may not hang on what else the machine was doing.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_INFO = Path("/proc/cpuinfo")


@cache
def processor_name() -> str:
    """Give the name that the processor has for itself."""
    return _field("model name") or platform.processor() or platform.machine()


@cache
def made_by_amd() -> bool:
    """Whether it is one of AMD's, on which MKL, behind torch's products there, was seen to be slow."""
    return "AuthenticAMD" in (_field("vendor_id") or platform.processor())


@cache
def made_by_intel() -> bool:
    """Whether it is one of Intel's."""
    return "GenuineIntel" in (_field("vendor_id") or platform.processor())


def _field(name: str) -> str:
    """Read a field of Linux's description of the first core; empty where there is none."""
    lines = _INFO.read_text().splitlines() if _INFO.exists() else []
    return next((value.strip() for field, _, value in (line.partition(":") for line in lines) if field.strip() == name), "")
