"""Options of agents: checks that their configs share, and the way from names and values to a config.

Left out on purpose: the command line, which reads the values as JSON, and any list of options: an agent's own config or
constructor says what there is.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise ValueError where an option is below ``least``."""
    for name in names:
        if not getattr(config, name) >= least:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least {least}")


def in_range(config: Any, *names: str, above: float, most: float = float("inf")) -> None:
    """Raise ValueError where an option is not above ``above`` and at most ``most``."""
    for name in names:
        if not above < getattr(config, name) <= most:
            limit = "" if most == float("inf") else f" and at most {most}"
            raise ValueError(f"{name} is {getattr(config, name)}; it must be above {above}{limit}")


def whole_groups(config: Any) -> None:
    """Raise ValueError where ``episodes_per_update`` is not whole groups of ``group_size``."""
    episodes, size = config.episodes_per_update, config.group_size
    if episodes % size:
        near = max(1, episodes // size) * size
        raise ValueError(f"episodes_per_update is {episodes} and group_size {size}; give a multiple, such as {near}")


def config_type(factory: Callable[..., Any]) -> type | None:
    """Find the dataclass that an agent takes as its argument ``config``, by its annotation; None where there is none."""
    if "config" not in _parameters(factory):
        return None
    hint = _hints(factory).get("config")
    kinds = [kind for kind in (hint, *get_args(hint)) if inspect.isclass(kind) and is_dataclass(kind)]
    return kinds[0] if kinds else None


def options(factory: Callable[..., Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Turn options by name into the arguments of an agent's constructor.

    Args:
        factory: the agent's class, or a function that makes it. If it takes ``config``, annotated with a dataclass, the
            options are that one's fields; else they are the constructor's own arguments.
        given: options by name.
        defaults: values for options that were not given; what is no option of this agent is left out.

    Raises:
        ValueError: an option is unknown, of the wrong type, or refused by the config; says what there is.
    """
    kind = config_type(factory)
    name_of = getattr(factory, "__name__", type(factory).__name__)
    if kind is None:
        known, hints = _parameters(factory), _hints(factory)
        for name, value in given.items():
            if name == "seed":
                raise ValueError(f"the seed of {name_of} is the run's own; leave it out of its options and give --seed")
            if not fits(value, hints.get(name, Any)):
                raise ValueError(f"the option {name!r} of {name_of} is {value!r}; it must be {_say(hints[name])}")
        return {name: value for name, value in defaults.items() if name in known} | dict(given)
    known = {field.name for field in fields(kind)}
    hints = get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{name_of} has no option {name!r}.{hint} Its options are {', '.join(sorted(known))}")
        if not fits(value, hints[name]):
            raise ValueError(f"the option {name!r} of {name_of} is {value!r}; it must be {_say(hints[name])}")
    return {"config": kind(**{name: value for name, value in defaults.items() if name in known} | dict(given))}


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (TypeError, NameError):  # annotations that cannot be read
        return {}


def _parameters(factory: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return []


def fits(value: Any, hint: Any) -> bool:
    """Whether a value that JSON can hold is of an annotated type; a type that JSON has no word for takes everything."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    return value is None if hint is types.NoneType else True


def _say(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_say(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return "None" if hint is types.NoneType else getattr(hint, "__name__", str(hint))
