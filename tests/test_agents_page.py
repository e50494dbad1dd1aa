"""docs/AGENTS.md: its agent is complete and learns, and its tables name what there is."""

import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from textgym_agents.agent import AGENTS, find_agent
from textgym_agents.agent_config import config_type
from textgym_agents.ppo import PPOConfig
from textgym_agents.train import TrainConfig, train

from textgym import PromptTask

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "AGENTS.md").read_text(encoding="utf-8")


def test_the_agent_of_the_page_learns(letters, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# my_agent.py\n.*?)```", PAGE, re.DOTALL)
    assert code.count("\n") <= 44
    (tmp_path / "my_agent.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    task = PromptTask(
        ["a"], letters, lambda episodes: [float(e.text.count("b")) for e in episodes], max_new_tokens=6,
        score_fn=lambda episodes: sum(e.text.count("b") for e in episodes) / len(episodes) / 6,
    )  # fmt: skip
    sizes = {"num_slots": 32, "updates": 40, "ppo": PPOConfig(episodes_per_update=32), "layers": 1, "width": 32}
    try:
        run = train(
            TrainConfig(task=task, agent="my_agent:MyAgent", device="cpu", eval_episodes=64, out=tmp_path / "run", **sizes)
        )
    finally:
        sys.modules.pop("my_agent", None)
    assert run.before["score"] < 0.3
    assert run.after["score"] > 0.6
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["episodes"] == 40 * 32  # episodes_per_update followed the run's


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
