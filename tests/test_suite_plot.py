import pytest
from suite_kit import credit_row, failed_row, learning_row

pytest.importorskip("matplotlib")
from textgym_agents.suite_plot import draw

ROWS = [
    learning_row("copying", "scalar", 0, [0.0, 0.2, 0.4]),
    learning_row("copying", "dense", 0, [0.0, 0.6, 1.0]),
    learning_row("my_module:Task", "dense", 0, [0.0, 0.6, 1.0]),
    credit_row("probe_joint", "last", 0, 0.5),
    credit_row("probe_joint", "uniform", 0, None),
]


def test_each_figure_is_there_as_png_and_svg(tmp_path):
    (tmp_path / "old.svg").write_text("of an earlier call")
    paths = draw(ROWS, tmp_path)
    names = ["curves-copying", "curves-my_module-Task", "against-scalar", "credit"]
    assert [path.name for path in paths] == [f"{name}.svg" for name in names]
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert "ppo, dense (20 reward calls)" in paths[0].read_text()
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert draw([failed_row()], tmp_path) == []
