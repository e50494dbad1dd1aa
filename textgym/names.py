"""Objects by name, ``"module:Name"``, and whether they can be called as they are about to be.

Left out on purpose: short names. Who has some knows what they stand for: ``task``, ``credit``, the agents.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any


def resolve_name(name: str) -> Any:
    """Import ``"module:Name"`` and return the object.

    Raises:
        ValueError: the module or the name is not there; says which.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{name!r} is not of the form 'module:Name'")
    try:
        if module_name.startswith("."):
            raise ModuleNotFoundError(name=module_name)
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name and not module_name.startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        hint = "; write it without '.py'" if module_name.endswith(".py") else "; is its folder on PYTHONPATH and spelled right?"
        raise ValueError(f"there is no module {module_name!r} (from {name!r}){hint}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"module {module_name!r} has no {attribute!r} (from {name!r}){did_you_mean(attribute, dir(module))}")
    return getattr(module, attribute)


def check_arguments(factory: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Check that ``factory`` can be called so; what it takes is then named, without its values.

    Raises:
        ValueError: an argument is missing or unknown.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables have none; calling them will tell
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(factory, "__name__", type(factory).__name__)
        known = list(signature.parameters)
        unknown = [key for key in kwargs if key not in known]
        hint = did_you_mean(unknown[0], known) if unknown else ""
        raise ValueError(f"{name}: {error}{hint}; its arguments are {', '.join(known) or 'none'}") from None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Give the end of a message with the known name that is like this one; nothing where none is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
