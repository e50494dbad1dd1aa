"""Objects by name, ``"module:Name"``, and whether they can be called as they are about to be.

Left out on purpose: short names. Who has some knows what they stand for: ``task``, ``credit``, the agents.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

_ADAPTERS = {
    "TRL's: wrap it, textgym.integrations.reward_functions.trl_rewards(function)": ("completions", "completion_ids"),
    "trlX's: wrap it, textgym.integrations.reward_functions.trlx_rewards(function, tokenizer)": ("samples", "outputs"),
}
"""Whose reward functions take arguments of these names, and what makes them ``reward_fn``."""


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


def check_reward_function(function: Callable[..., Any], name: str) -> None:
    """Check that a reward function can be called with a list of episodes, and was not written to be called by another library.

    Raises:
        ValueError: it takes other arguments; names the adapter where they are those of TRL or trlX.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters.values()
    theirs = [adapter for adapter, words in _ADAPTERS.items() if {*words} & {parameter.name for parameter in parameters}]
    try:
        signature.bind([])
        # One name may be anybody's; with "**columns" it is called by names, as those libraries do.
        fits = not theirs or all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    except TypeError:
        fits = False
    if fits:
        return
    written = f"{getattr(function, '__name__', type(function).__name__)}{signature}"
    hint = f"; it looks like one of {theirs[0]}" if theirs else ""
    raise ValueError(f"{name} is {written}, and is called with one argument, a list of episodes{hint}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Give the end of a message with the known name that is like this one; nothing where none is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
