"""Runs that are cut off in the middle, and what a run leaves behind."""

import json

import pytest
from safetensors.torch import load_file
from textgym_agents import run_folder
from textgym_agents.train import train


class StopError(Exception):
    """Ends a run in the middle."""


def cut_off(config, monkeypatch, after):
    """Run until the agent has told its figures ``after`` times, then raise out of the run."""
    told = []

    def check(figures, who):
        if len(told) == after:
            raise StopError
        told.append(figures)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "check_figures", check)
        with pytest.raises(StopError):
            train(config)


def contents(folder):
    weights = {name: load_file(folder / name) for name in ("policy/model.safetensors", "value_head.safetensors")}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = ("collect_seconds", "update_seconds")
    rows = [{name: value for name, value in row.items() if name not in seconds} for row in rows]
    return weights, rows, {k: v for k, v in json.loads((folder / "result.json").read_text()).items() if k != "seconds"}
