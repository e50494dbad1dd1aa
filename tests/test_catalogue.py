from textgym_agents.suite_run import check, task_of

from textgym.suite.catalogue import GROUPS
from textgym.suite.credit_table import EXACT


def test_every_shipped_setting_can_be_run():
    for group in GROUPS.values():
        for setting in group.settings():
            check(setting)
            if setting.agent != EXACT:
                task_of(setting)


def test_tiny_has_each_form_of_reward():
    rewards = {setting.reward for setting in GROUPS["tiny"].settings()}
    assert rewards >= {"scalar", "dense", "streams", "sequential", "prefix_difference", "leave_one_out", "shapley", "uniform"}


def test_names_are_the_keys():
    assert all(name == group.name for name, group in GROUPS.items())
