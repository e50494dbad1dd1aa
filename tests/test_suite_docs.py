"""docs/SUITE.md: its settings file runs, its tables name what there is."""

import re
from pathlib import Path

from textgym_agents.suite import SuiteConfig, suite

from textgym.suite.catalogue import GROUPS
from textgym.suite.credit_table import CONTESTANTS
from textgym.suite.group_file import read_group
from textgym.suite.reward_forms import REWARD_FORMS

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "SUITE.md").read_text(encoding="utf-8")


def test_the_settings_file_of_the_page_runs(tmp_path):
    (text,) = re.findall(r"```toml\n# mine.toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert read_group(path).seeds == 3
    report = suite(path, SuiteConfig(out=tmp_path / "out", seeds=1, episodes=64, plot=False, jobs=1), lambda line: None)
    assert [row["error"] for row in report.rows] == [None] * 6


def test_the_page_names_every_group_option_and_form():
    for name in [*GROUPS, *REWARD_FORMS, *(f"--{name}" for name in SuiteConfig.__dataclass_fields__ if name != "plot")]:
        assert f"`{name}`" in PAGE, name
    assert f"{len(GROUPS['tiny'].settings()) * GROUPS['tiny'].seeds} runs" in PAGE
    assert f"the credit of {len(CONTESTANTS)} assigners" in PAGE


def test_the_page_names_every_field_of_a_row():
    from_code = {"key", "seed", "setting", "curve", "before", "final", "credit", "error", "traceback", "warnings", "seconds"}
    assert from_code <= set(re.findall(r"`(\w+)`", PAGE))
