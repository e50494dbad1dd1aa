"""docs/AGENTS.md: its agent is complete and learns, and its tables name what there is."""

import json
import re
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from run_kit import contents, cut_off
from textgym_agents.agent import AGENTS, find_agent
from textgym_agents.agent_config import config_type
from textgym_agents.ppo import PPOConfig
from textgym_agents.train import TrainConfig, train

from textgym import PromptTask

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "AGENTS.md").read_text(encoding="utf-8")


def write_code(folder, monkeypatch):
    """Put the page's agents where they can be imported; returns the code of the first one."""
    for name in ("my_agent", "my_resumable_agent"):
        (code,) = re.findall(rf"```python\n(# {name}.py\n.*?)```", PAGE, re.DOTALL)
        (folder / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    return (folder / "my_agent.py").read_text()


def test_the_agent_of_the_page_learns(letters, tmp_path, monkeypatch):
    assert write_code(tmp_path, monkeypatch).count("\n") <= 45
    task = PromptTask(
        ["a"], letters, lambda episodes: [float(e.text.count("b")) for e in episodes], max_new_tokens=6,
        score_fn=lambda episodes: sum(e.text.count("b") for e in episodes) / len(episodes) / 6,
    )  # fmt: skip
    sizes = {"num_slots": 32, "updates": 40, "ppo": PPOConfig(episodes_per_update=32), "layers": 1, "width": 32}
    run = train(TrainConfig(task=task, agent="my_agent:MyAgent", device="cpu", eval_episodes=64, out=tmp_path / "run", **sizes))
    assert run.before["score"] < 0.3
    assert run.after["score"] > 0.6
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["episodes"] == 40 * 32  # episodes_per_update followed the run's


def test_a_resumed_run_of_an_agent_from_outside_ends_bit_identical_with_an_uninterrupted_one(tmp_path, monkeypatch):
    write_code(tmp_path, monkeypatch)
    config = TrainConfig(
        agent="my_resumable_agent:MyResumableAgent", updates=5, num_slots=8, warmup_steps=3, eval_episodes=8, device="cpu",
        checkpoint_every=2, ppo=PPOConfig(episodes_per_update=8),
    )  # fmt: skip
    train(replace(config, out=tmp_path / "whole"))
    cut_off(replace(config, out=tmp_path / "cut"), monkeypatch, after=3)
    train(TrainConfig(resume=tmp_path / "cut"))
    whole, cut = (contents(tmp_path / name) for name in ("whole", "cut"))
    assert whole[1:] == cut[1:]
    for name in whole[0]:
        assert all(torch.equal(tensor, cut[0][name][key]) for key, tensor in whole[0][name].items()), name


@pytest.mark.parametrize("name", AGENTS)
def test_the_page_names_every_agent_and_its_options(name):
    section = PAGE.partition("## The shipped agents")[2].partition("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith(f"| `{name}` |")]
    kind = config_type(find_agent(name))
    if name in ("ppo", "random", "grpo"):
        return
    assert kind is not None
    common = {"episodes_per_update", "learning_rate", "max_grad_norm"}
    assert {field.name for field in fields(kind)} - common == set(re.findall(r"`(\w+)`", row.rpartition(" | ")[2]))
