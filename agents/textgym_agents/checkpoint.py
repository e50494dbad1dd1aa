"""Files that a kill cannot break, and the state of learning in them: no pickle, tensors as safetensors, numbers as JSON.

Left out on purpose: what a checkpoint must hold, which the agent knows, and when one is due, which the run knows. Episodes
that are being written are not part of a state: it is taken between two collections.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

_PART = "unfinished"
_OLD = ".previous"


def write_whole(folder: Path, write: Callable[[Path], object]) -> list[str]:
    """Let ``write`` fill a folder beside what is in ``folder``, then put each item in the place of the one of its name.

    An exception or a kill inside ``write`` leaves what was there. A file is replaced in one step; of a folder the old one
    stands as ``<name>.previous`` for the moment in which the new one takes its name.

    Returns:
        names of what was written.
    """
    part = folder / _PART
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        write(part)
        _sync(part)
        names = sorted(item.name for item in part.iterdir())
        for name in names:
            target, old = folder / name, folder / (name + _OLD)
            if target.is_dir():
                if old.exists():
                    shutil.rmtree(old)
                target.replace(old)
            (part / name).replace(target)
            if old.exists():
                shutil.rmtree(old)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return names


def write_version(folder: Path, number: int, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill ``folder/<number>``, which appears under that name when it is whole; older ones then go.

    At every moment the newest folder that has a number is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part, target = folder / _PART, folder / f"{number:08d}"
    if part.exists():
        shutil.rmtree(part)
    part.mkdir()
    write(part)
    _sync(part)
    part.replace(target)  # an error where the number is taken: it is to grow
    for older in folder.iterdir():
        if older.name.isdigit() and older != target:
            shutil.rmtree(older)
    return target


def newest_version(folder: Path) -> Path | None:
    """Find the newest whole folder that ``write_version`` left; None where there is none."""
    whole = sorted(path for path in folder.glob("*") if path.name.isdigit() and path.is_dir())
    return whole[-1] if whole else None


def _sync(folder: Path) -> None:
    """Have the system write a folder's files to disk before they take the place of others."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def save_learning(
    folder: str | Path,
    model: nn.Module,
    optimizer: Any,
    generators: Mapping[str, torch.Generator],
    numbers: Mapping[str, Any],
    reference: nn.Module | None = None,
) -> None:
    """Write the state of learning: weights, moments and generators as safetensors, numbers as JSON.

    Args:
        folder: is there.
        model: every weight of it, adapters unmerged.
        optimizer: of ``torch.optim``, or ``accelerate``'s around one.
        generators: by name; ``policy.generator`` of a ``CausalLMPolicy``, and whatever else is drawn from.
        numbers: what JSON can hold.
        reference: a frozen model beside it.

    Raises:
        TypeError: the optimizer keeps something that is no tensor, or a number is none that JSON can hold.
    """
    folder = Path(folder)
    save_model(model, str(folder / "model.safetensors"))
    if reference is not None:
        save_model(reference, str(folder / "reference.safetensors"))
    state = optimizer.state_dict()
    moments = {f"{i}.{name}": x for i, entry in state["state"].items() for name, x in entry.items() if x is not None}
    if odd := [f"{name} ({type(x).__name__})" for name, x in moments.items() if not isinstance(x, Tensor)]:
        raise TypeError(f"{type(optimizer).__name__} keeps {odd[0]}, and only tensors can be written; save it in your own way")
    moments = {name: x.contiguous() for name, x in moments.items()}
    save_file(moments, str(folder / "optimizer.safetensors"))
    rates = [{name: value for name, value in group.items() if name != "params"} for group in state["param_groups"]]
    save_file({name: each.get_state() for name, each in generators.items()}, str(folder / "generators.safetensors"))
    write_json(folder / "learning.json", {"param_groups": rates, **numbers})


def load_learning(
    folder: str | Path,
    model: nn.Module,
    optimizer: Any,
    generators: Mapping[str, torch.Generator],
    reference: nn.Module | None = None,
) -> dict[str, Any]:
    """Read what ``save_learning`` wrote into objects built as they were then. Returns the numbers.

    Raises:
        ValueError: one of the two has a reference and the other has not, or they have generators of other names.
        RuntimeError: the model is of another shape.
    """
    folder = Path(folder)
    if (folder / "reference.safetensors").exists() != (reference is not None):
        raise ValueError(f"{folder} and this agent differ in whether there is a reference; build it as it was saved")
    states = load_file(str(folder / "generators.safetensors"))
    if states.keys() != generators.keys():
        raise ValueError(
            f"{folder} holds the generators {sorted(states)} but {sorted(generators)} are given; give those that were saved"
        )
    load_model(model, str(folder / "model.safetensors"))
    if reference is not None:
        load_model(reference, str(folder / "reference.safetensors"))
    numbers = json.loads((folder / "learning.json").read_text(encoding="utf-8"))
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(str(folder / "optimizer.safetensors")).items():
        number, _, name = key.partition(".")
        entries.setdefault(int(number), {})[name] = tensor
    groups = [old | new for old, new in zip(optimizer.state_dict()["param_groups"], numbers.pop("param_groups"), strict=True)]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    for name, state in states.items():
        generators[name].set_state(state)
    return numbers


def random_states(generators: tuple[np.random.Generator, ...]) -> list[Any]:
    """Give the states of an environment's generators, for JSON."""
    return [generator.bit_generator.state for generator in generators]


def set_random_states(generators: tuple[np.random.Generator, ...], states: list[Any]) -> None:
    """Set generators to what ``random_states`` gave."""
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state


def write_json(path: Path, value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a JSON file, in one step: a kill leaves the old one or the new one.

    Raises:
        TypeError: ``value`` holds what JSON has no word for, and ``default`` makes nothing of it.
    """
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, default=default) + "\n", encoding="utf-8")
    part.replace(path)
