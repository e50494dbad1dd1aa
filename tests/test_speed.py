from pathlib import Path

import pytest
from textgym_agents.bench.load import LoadConfig
from textgym_agents.bench.report import read_rows
from textgym_agents.bench.speed import PARTS, SpeedConfig, speed


def test_one_run_makes_every_table_and_the_plot(tmp_path):
    told = []
    rows = speed(SpeedConfig(out=tmp_path, quick=True, threads=0), told.append)
    assert told == list(PARTS)
    assert tuple(dict.fromkeys(row.part for row in rows)) == PARTS
    assert read_rows(tmp_path / "speed.json") == rows
    assert {path.name for path in tmp_path.iterdir()} == {"speed.json", "speed.md", "speed.png", "speed.svg"}
    assert all(row.value is None or row.value > 0 for row in rows)
    references = [row for row in rows if row.name == "Hugging Face generate"]
    assert [row.ratio for row in references] == [1.0] * 4  # two loads and two numbers of slots
    assert {row.slots for row in rows if row.part == "sweep"} == {2, 4}


def test_without_matplotlib_the_plot_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'textgym\[plot\]', or --no-plot"):
        speed(SpeedConfig(out=tmp_path, quick=True), print)
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="episodes is 100; it must be at least slots = 32 and a multiple of minibatch = 32"):
        SpeedConfig(load=LoadConfig(episodes=100))
    with pytest.raises(ValueError, match="trl_python is nowhere/python"):
        SpeedConfig(trl_python=Path("nowhere/python"))
    with pytest.raises(ValueError, match="repeats is 0"):
        SpeedConfig(repeats=0)
    with pytest.raises(ValueError, match="least_seconds is -1"):
        SpeedConfig(least_seconds=-1)
