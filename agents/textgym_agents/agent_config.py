"""Options of agents: checks that their configs share, and the way from names and values to a config.

Left out on purpose: the command line, which reads the values as JSON, and any list of options: an agent's own config or
constructor says what there is.
"""

from __future__ import annotations

import difflib
import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral, Real
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

FINITE = sys.float_info.max
"""Most that an option may be which must be finite."""


def check_types(config: Any) -> None:
    """Raise ValueError where a field of a dataclass holds a value that is not of its annotated type, or is nan."""
    hints = get_type_hints(type(config))
    for each in fields(config):
        value = getattr(config, each.name)
        if not fits(value, hints[each.name]) or value != value:
            _refuse(config, each.name, "be a number" if value != value else f"be {_say(hints[each.name])}")


def at_least(config: Any, least: float, *names: str, most: float = FINITE) -> None:
    """Raise ValueError where an option is below ``least``, or above ``most``: infinity only where that is said."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            _refuse(config, name, f"be at least {least}{_up_to(most)}")


def in_range(config: Any, *names: str, above: float, most: float = FINITE) -> None:
    """Raise ValueError where an option is not above ``above`` and at most ``most``: infinity only where that is said."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not above < value <= most:
            _refuse(config, name, f"be above {above}{_up_to(most)}")


def _up_to(most: float) -> str:
    return {FINITE: " and finite", math.inf: ""}.get(most, f" and at most {most}")


def _refuse(config: Any, name: str, allowed: str) -> NoReturn:
    default = getattr(type(config), name, MISSING)
    hint = "" if default is MISSING else f"; leave it out for its default, {default!r}"
    raise ValueError(f"{name} is {getattr(config, name)!r}; it must {allowed}{hint}")


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
        known = _parameters(factory)
        for name, value in given.items():
            if name == "seed":
                raise ValueError(f"the seed of {name_of} is the run's own; leave it out of its options and give --seed")
            if name in known and not fits(value, hint := _hint_of(factory, known[name])):
                raise ValueError(f"the option {name!r} of {name_of} is {value!r}; it must be {_say(hint)}")
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


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


def _hint_of(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Give the annotation of an argument, or, where there is none, what its default says: a number, a text, true or false."""
    if parameter.annotation is not parameter.empty:
        return _hints(factory).get(parameter.name, Any)
    kind = type(parameter.default)
    return kind if kind in (bool, str, list, dict) else float if kind in (int, float) else Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a value that JSON can hold is of an annotated type; a type that JSON has no word for takes everything."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint in (float, int):
        return isinstance(value, Real if hint is float else Integral) and not isinstance(value, bool)
    if (kind := origin or hint) in (list, tuple, Sequence):
        parts = [each for each in get_args(hint) if each is not ...]
        return isinstance(value, list | tuple) and (len(parts) != 1 or all(fits(each, parts[0]) for each in value))
    if kind in (dict, Mapping):
        return isinstance(value, Mapping)
    if hint in (bool, str):
        return isinstance(value, hint)
    return value is None if hint is types.NoneType else True


def _say(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_say(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return "None" if hint is types.NoneType else str(hint) if get_origin(hint) else getattr(hint, "__name__", str(hint))
