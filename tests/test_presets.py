"""Settings per shipped task: by every name of the task, as the command line's defaults, and never in the way of an option."""

import json

import pytest
from textgym_agents import PPOConfig
from textgym_agents.cli import main
from textgym_agents.presets import PRESETS, preset, short_name
from textgym_agents.train import TrainConfig

from textgym.tasks import TASKS
from textgym.tasks.random_walks import RandomWalks

NAMES = [
    "random_walks",
    "textgym/RandomWalks-v0",
    "textgym:textgym/RandomWalks-v0",
    "textgym.tasks.random_walks:RandomWalks",
    RandomWalks,
    RandomWalks(3),
]
SHORT = ["--updates=1", "--num-slots=8", "--warmup-steps=1", "--eval-episodes=8", "--device=cpu", "--episodes-per-update=8",
         "--layers=1"]  # fmt: skip


class Mine:
    """A task from outside the package."""


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name if isinstance(name, str) else type(name).__name__)
def test_every_name_of_a_task_leads_to_the_same_settings(name):
    assert preset(name) == TrainConfig(task=name, **PRESETS["random_walks"])


def test_a_task_without_settings_of_its_own_takes_the_defaults():
    assert preset("number_duel") == TrainConfig()
    assert preset(f"{__name__}:Mine") == TrainConfig(task=f"{__name__}:Mine")
    assert (short_name("TextGen-v0"), short_name(Mine)) == (None, None)


def test_settings_are_of_shipped_tasks_and_can_be_built():
    for name in PRESETS:
        assert name in TASKS
        assert short_name(name) == name
        preset(name)


def test_what_is_changed_wins_over_the_settings():
    changed = preset("random_walks", seed=3, layers=1)
    assert (changed.seed, changed.layers, changed.width) == (3, 1, 144)


def test_another_agent_gets_the_budget_of_the_settings_and_no_options_of_ppo():
    ppo = preset("random_walks", agent=f"{__name__}:Mine").ppo
    assert ppo == PPOConfig(episodes_per_update=PRESETS["random_walks"]["ppo"].episodes_per_update)
    assert preset("random_walks", agent="textgym_agents.ppo:PPO").ppo == PRESETS["random_walks"]["ppo"]


@pytest.mark.parametrize("given", [["--task", NAMES[1]], [f"--task={NAMES[0]}"], ["--task=number_duel", "--task", NAMES[3]]])
def test_the_command_line_starts_from_the_settings_and_an_option_wins(tmp_path, given):
    main(["train", *given, "--out", str(tmp_path), *SHORT])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["task"] == given[-1].removeprefix("--task=")
    assert (config["width"], config["warmup_draw"], config["layers"]) == (144, 1000, 1)
    assert config["ppo"]["learning_rate"] == PRESETS["random_walks"]["ppo"].learning_rate


def test_help_shows_the_settings_of_the_task_that_is_named(capsys):
    shown = []
    for args in ([], ["--task", "random_walks"]):
        with pytest.raises(SystemExit):
            main(["train", *args, "--help"])
        shown.append("(default: 144)" in capsys.readouterr().out)
    assert shown == [False, True]
