import pytest
from textgym_agents.bench.report import Row

pytest.importorskip("matplotlib")
from textgym_agents.bench.plot import draw


def test_what_was_run_is_drawn_in_both_formats(tmp_path):
    rows = [
        Row("rollout", "a", "textgym collect", "useful tokens/s", 20.0, 2.0, slots=4),
        Row("rollout", "b", "of another setting", "useful tokens/s", 20.0, 2.0, slots=4),
        Row("sweep", "c", "textgym collect", "useful tokens/s", 20.0, 2.0, slots=4),
        Row("sweep", "d", "textgym collect", "useful tokens/s", 30.0, 2.0, slots=8),
        Row("step", "e", "TRL PPO", "episodes/s", 1.5, 1.0),
        Row("step", "e", "SB3 PPO", "episodes/s", None, note="not run"),
    ]
    paths = draw(rows, tmp_path)
    assert [path.name for path in paths] == ["speed.png", "speed.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    svg = paths[1].read_text()
    assert "<!-- TRL PPO -->" in svg
    assert "SB3" not in svg
    assert "another setting" not in svg


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert draw([Row("share", "s", "model", "%", 50.0)], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_longest_names_of_a_run_leave_the_axes_room(tmp_path):
    names = ["Hugging Face generate", "textgym Collector, carried over, cache rebuilt after each collection"]
    rows = [Row("rollout", "a", name, "useful tokens/s", 2000.0, 123.45, slots=4) for name in names]
    rows += [Row("sweep", "c", name, "useful tokens/s", 20.0 * n, 2.0, slots=n) for name in names for n in (2, 4)]
    rows += [Row("step", "e", "SB3 PPO (whole texts recomputed, no reference)", "episodes/s", 60.6, 0.73)]
    draw(rows, tmp_path)  # matplotlib warns where nothing is left, and a warning is an error here
