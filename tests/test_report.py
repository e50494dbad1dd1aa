import json

import pytest
from textgym_agents.bench.report import Row, alternate, compare, markdown, read_rows, write_report


class Scripted:
    """Hands out figures in order, and keeps the order in which all were asked."""

    asked: list[str]

    def __init__(self, name, figures, asked):
        self.name, self.figures, self.asked, self.closed = name, iter(figures), asked, False

    def run(self):
        self.asked.append(self.name)
        return next(self.figures)

    def close(self):
        self.closed = True


def test_contestants_take_turns_and_the_first_round_is_not_timed():
    asked = []
    fast = Scripted("fast", [(10, 99.0), (10, 1.0), (10, 2.0)], asked)
    slow = Scripted("slow", [(10, 99.0), (10, 10.0), (10, 5.0)], asked)
    rates = alternate({"fast": fast, "slow": slow}, 2, {"fast": 10})
    assert asked == ["fast", "slow"] * 3
    assert rates == {"fast": (10.0, 5.0), "slow": (1.0, 2.0)}
    assert fast.closed
    assert slow.closed


def test_in_a_timed_round_each_runs_for_as_long_as_it_must():
    asked = []
    fast = Scripted("fast", [(10, 1.0), (10, 1.0), (10, 1.0), (20, 0.5), (10, 3.0)], asked)
    slow = Scripted("slow", [(10, 9.0), (10, 9.0), (10, 5.0)], asked)
    rates = alternate({"fast": fast, "slow": slow}, 2, {"slow": 10}, least_seconds=2.5)
    assert asked == ["fast", "slow", "fast", "fast", "fast", "slow", "fast", "slow"]
    assert rates == {"fast": (40 / 2.5, 10 / 3), "slow": (10 / 9, 2.0)}


def test_other_work_than_the_loads_is_an_error_that_closes_everyone():
    one, other = Scripted("one", [(10, 1.0)], []), Scripted("other", [(9, 1.0)], [])
    with pytest.raises(RuntimeError, match="other did 9 of work where the load asks for 10"):
        alternate({"one": one, "other": other}, 1, {"one": 10, "other": 10})
    assert one.closed
    assert other.closed


def test_a_ratio_is_the_median_of_the_repeats_ratios():
    rows = compare({"a": (1.0, 10.0, 2.0), "b": (3.0, 10.0, 8.0)}, "a", part="p", setting="s", unit="u")
    assert [(row.value, row.ratio) for row in rows] == [(2.0, 1.0), (8.0, 3.0)]  # not 8 / 2


def test_the_report_is_read_as_it_was_written(tmp_path):
    rows = [
        Row("rollout", "32 slots", "ours", "tokens/s", 1234.5, 2.0, (1200.0, 1234.5, 1300.0), 32, "a note"),
        Row("rollout", "32 slots", "theirs", "tokens/s", None, note="pip install it"),
    ]
    write_report(tmp_path / "new", rows, {"seed": 0})
    assert read_rows(tmp_path / "new" / "speed.json") == rows
    assert json.loads((tmp_path / "new" / "speed.json").read_text())["options"] == {"seed": 0}
    text = (tmp_path / "new" / "speed.md").read_text()
    assert "| ours | 1,234 (1,200 to 1,300) | 2.00 | a note |" in text
    assert "| theirs | not run |  | pip install it |" in text


def test_every_part_and_setting_has_its_own_table():
    rows = [Row("a", setting, name, "s", 0.5, 1.0) for setting in ("x", "y") for name in ("m", "n")]
    text = markdown(rows, {"cores": "2"})
    assert text.count("|---|---|---|---|") == 2
    assert "| m | 0.5 | 1.00 |  |" in text
