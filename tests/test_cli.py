import json

import pytest
from textgym_agents.cli import main

SMALL = ["--updates=1", "--num-slots=8", "--warmup-steps=2", "--eval-episodes=8", "--device=cpu", "--episodes-per-update=8"]


def test_train_prints_the_table_and_coloured_episodes(tmp_path, capsys):
    main(["train", "--out", str(tmp_path), "--seed", "3", *SMALL])
    out = capsys.readouterr().out
    for part in ("before", "after", "well_formed", "run folder"):
        assert part in out
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3


def test_every_option_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for option in ("--task", "--task-args", "--model", "--agent", "--seed", "--device", "--gae-lambda", "--kl-coef"):
        assert option in out


def test_task_arguments_are_passed_on(tmp_path):
    args = ["--task-args", '{"numerals": "digits", "masses": [1, 0]}']
    main(["train", "--out", str(tmp_path), *args, *SMALL])
    assert json.loads((tmp_path / "config.json").read_text())["task_args"]["masses"] == [1, 0]


def test_wrong_names_are_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--task", "number_dual"])
    assert stop.value.code == 2
    assert "Did you mean 'number_duel'" in " ".join(capsys.readouterr().err.split())


def test_tasks_are_listed(capsys):
    main(["tasks"])
    out = capsys.readouterr().out
    assert "number_duel" in out
    assert "ThreeSentences-v0" in out


def test_bench_speed_prints_the_tables_and_writes_the_report(tmp_path, capsys):
    main(["bench", "speed", "--quick", "--no-plot", "--parts", "share", "--threads", "0", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "environment and bookkeeping" in out
    assert (tmp_path / "speed.md").exists()
    with pytest.raises(SystemExit):
        main(["bench", "nothing"])
