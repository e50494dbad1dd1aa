import sys

import numpy as np
import pytest
from kill_kit import SETTINGS, begin, deterministic, kill_after, tear
from textgym_agents.suite import SuiteConfig, find_group, say_failures, suite

from textgym.suite.catalogue import GROUPS
from textgym.suite.journal import read_rows
from textgym.suite.setting import Block, Group

SMALL = {"layers": 1, "width": 16, "heads": 2, "num_slots": 8, "eval_episodes": 16, "warmup_steps": 0, "episodes_per_update": 8}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_suite_that_was_killed_and_begun_again_has_the_rows_of_one_that_was_not(tmp_path):
    """The long version is tests/long/killed_suite.py: ten moments, on ``tiny``."""
    settings, path = tmp_path / "small.toml", tmp_path / "killed" / "rows.jsonl"
    settings.write_text(SETTINGS.format(seeds=3))
    args = ["run", str(settings), "--out", str(path.parent), "--no-plot", "--jobs", "2"]
    assert kill_after(begin(*args), path, 1, 0.05)
    done = len(read_rows(path))
    assert 1 <= done < 6
    tear(path, np.random.default_rng(0))
    assert len(read_rows(path)) == done - 1
    heard = []
    again = suite(settings, SuiteConfig(out=path.parent, plot=False), heard.append)
    assert f"small: 6 runs, {done - 1} of them done already" in heard[0]
    assert path.read_bytes().count(b"\n") == len(heard) - 1 + done - 1 == 6
    undisturbed = suite(settings, SuiteConfig(out=tmp_path / "undisturbed", plot=False, jobs=1), heard.append)
    assert deterministic(again.rows) == deterministic(undisturbed.rows)
    assert not (path.parent / "work").exists()


def test_a_run_that_fails_is_a_row_and_the_others_go_on(tmp_path):
    blocks = [
        Block(task, ("dense",), ("ppo",), 8, options=SMALL) for task in ("suite_kit:BrokenCopying", "suite_kit:MyCopying")
    ]
    group, heard = Group("mine", "mine", 1, blocks), []
    report = suite(group, SuiteConfig(out=tmp_path, plot=False, jobs=1), heard.append)
    assert [row["error"] is None for row in report.rows] == [False, True]
    assert report.rows[0]["error"].startswith("RuntimeError: no rewards today")
    assert "in rewards" in report.rows[0]["traceback"]
    assert "FAILED: RuntimeError" in heard[1]
    assert say_failures(report).startswith("1 of 2 runs FAILED")
    assert "no rewards today" in (tmp_path / "tables.md").read_text()
    suite(group, SuiteConfig(out=tmp_path, plot=False), heard.append)
    assert "2 runs, 2 of them done already" in heard[3]
    suite(group, SuiteConfig(out=tmp_path, plot=False, retry=True, jobs=1), heard.append)
    assert "2 runs, 1 of them done already" in heard[4]
    assert len(read_rows(tmp_path / "rows.jsonl")) == 2


def test_a_user_s_task_assigner_and_agent_join_by_name(tmp_path):
    group = Group("mine", "mine", 1, [Block("copying", ("scalar",), ("ppo",), 8, options=SMALL)])
    names = {"task": ("suite_kit:MyCopying",), "reward": ("suite_kit:MyLast", "scalar")}
    agent = ("textgym_agents.reinforce:Reinforce",)
    report = suite(group, SuiteConfig(out=tmp_path, plot=False, jobs=1, agent=agent, **names), lambda line: None)
    assert [row["error"] for row in report.rows] == [None, None]
    assert report.tables[0].rows[0][0] == "textgym_agents.reinforce:Reinforce, suite_kit:MyLast"
    assert report.rows[0]["curve"] == report.rows[1]["curve"]  # the last token is paid the sum either way


def test_wrong_names_are_told_before_anything_is_run(tmp_path):
    for config, said in (({"agent": ("pp",)}, "no agent 'pp'"), ({"reward": ("x",)}, "no assigner 'x'")):
        with pytest.raises(ValueError, match=said):
            suite("tiny", SuiteConfig(out=tmp_path / "none", plot=False, **config))
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="jobs is 0"):
        SuiteConfig(jobs=0)


def test_groups_are_found_by_name_or_file(tmp_path):
    assert find_group("tiny") is GROUPS["tiny"]
    with pytest.raises(ValueError, match="no settings file"):
        find_group("tinny")


def test_without_matplotlib_figures_are_refused_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'textgym\[plot\]', or --no-plot"):
        suite("tiny", SuiteConfig(out=tmp_path))
