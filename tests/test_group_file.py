import json

import pytest

from textgym.suite.group_file import read_group

TOML = """
seeds = 2
[[blocks]]
task = "copying"
rewards = ["scalar", "mine:Assigner"]
agents = ["ppo"]
episodes = 64
[blocks.task_args]
length = 3
[blocks.agent_args.ppo]
epochs = 4
"""


def test_toml_and_json_say_the_same(tmp_path):
    (tmp_path / "mine.toml").write_text(TOML)
    group = read_group(tmp_path / "mine.toml")
    assert (group.name, group.seeds) == ("mine", 2)
    assert [(s.reward, dict(s.task_args), dict(s.agent_args)) for s in group.settings()] == [
        ("scalar", {"length": 3}, {"epochs": 4}),
        ("mine:Assigner", {"length": 3}, {"epochs": 4}),
    ]
    block = {"task": "copying", "rewards": ["scalar", "mine:Assigner"], "agents": ["ppo"], "episodes": 64}
    said = {"seeds": 2, "blocks": [block | {"task_args": {"length": 3}, "agent_args": {"ppo": {"epochs": 4}}}]}
    (tmp_path / "mine.json").write_text(json.dumps(said))
    assert [s.key for s in read_group(tmp_path / "mine.json").settings()] == [s.key for s in group.settings()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = ", "is no TOML"),
        ("seeds = 1", "no list of blocks"),
        (TOML.replace("seeds = 2", "seed = 2"), "says seed; it may say name, about, seeds, blocks"),
        (TOML.replace("seeds = 2", ""), "does not say seeds"),
        (TOML.replace("episodes = 64", ""), "block 0 of .* does not say episodes"),
        (TOML.replace("episodes = 64", "episodes = 6.4"), "episodes = 6.4; it is a whole number"),
        (TOML.replace("agents", "agent"), "says agent"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, text, said):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_group(tmp_path / "mine.toml")


def test_files_that_are_missing_or_hold_no_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no settings file"):
        read_group(tmp_path / "none.toml")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="holds a list"):
        read_group(tmp_path / "list.json")
