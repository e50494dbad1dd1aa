import pytest

from textgym.suite.setting import Block, Group, Setting

BLOCK = Block("copying", ("scalar", "dense"), ("ppo", "rloo"), 64, agent_args={"rloo": {"group_size": 4}})
OTHER = Block("number_duel", ("streams",), ("ppo",), 32, task_args={"numerals": "digits"})


def test_a_block_is_the_product_of_rewards_and_agents():
    settings = BLOCK.settings()
    assert [setting.contestant for setting in settings] == ["ppo, scalar", "ppo, dense", "rloo, scalar", "rloo, dense"]
    assert [dict(setting.agent_args) for setting in settings] == [{}, {}, {"group_size": 4}, {"group_size": 4}]


def test_equal_settings_have_equal_keys_and_others_have_not():
    one = Setting("copying", "dense", "ppo", 64, {"length": 3, "alphabet": 4})
    same = Setting("copying", "dense", "ppo", 64, {"alphabet": 4, "length": 3})
    assert one.key == same.key == "".join(c for c in one.key if c in "0123456789abcdef")
    others = [
        Setting("copying", "dense", "ppo", 65, one.task_args),
        Setting("copying", "dense", "ppo", 64, one.task_args, {"a": 1}),
    ]
    assert len({one.key, *(other.key for other in others)}) == 3
    assert one.task_name == "copying(alphabet=4, length=3)"


def test_runs_give_every_setting_a_seed_before_any_has_a_second():
    runs = list(Group("g", "", 2, (BLOCK, OTHER, OTHER)).runs())
    assert [seed for _, seed in runs] == [0] * 5 + [1] * 5  # the same block twice is run once
    assert runs[4][0].task_name == "number_duel(numerals=digits)"


def test_other_names_take_the_places_of_the_groups_own():
    group = Group("g", "", 2, (BLOCK, OTHER))
    assert {setting.task for setting in group.narrowed(tasks=["number_duel"]).settings()} == {"number_duel"}
    new = group.narrowed(
        tasks=["copying", "mine:Task"], rewards=["mine:Assigner"], agents=["rloo", "mine:Agent"], seeds=1, episodes=8
    )
    assert new.seeds == 1
    assert [(s.task, s.reward, s.agent, s.episodes, dict(s.agent_args)) for s in new.settings()] == [
        ("copying", "mine:Assigner", "rloo", 8, {"group_size": 4}),
        ("copying", "mine:Assigner", "mine:Agent", 8, {}),
        ("mine:Task", "mine:Assigner", "rloo", 8, {"group_size": 4}),
        ("mine:Task", "mine:Assigner", "mine:Agent", 8, {}),
    ]
    assert group.narrowed() == group


def test_what_cannot_be_run_or_written_is_refused():
    for wrong, said in (
        (lambda: Setting("copying", "dense", "ppo", 0), "episodes is 0"),
        (lambda: Setting("copying", "dense", "ppo", 1, {"x": {1}}), "written as JSON"),
        (lambda: Setting("copying", "dense", "ppo", 1, {"x": float("nan")}), "written as JSON"),
        (lambda: Block("copying", "dense", ("ppo",), 1), "give a list of names"),
        (lambda: Block("copying", ("dense",), (), 1), "agents of the block of copying"),
        (lambda: Block("copying", ("dense",), ("ppo",), 1, agent_args={"rloo": {}}), "rloo, which is none of its agents"),
        (lambda: Group("g", "", 0, (BLOCK,)), "seeds is 0"),
        (lambda: Group("g", "", 1, ()), "nothing to run"),
    ):
        with pytest.raises(ValueError, match=said):
            wrong()
