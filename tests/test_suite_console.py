import pytest
from textgym_agents.cli import main

TOML = """
name = "mine"
seeds = 1
[[blocks]]
task = "copying"
rewards = ["scalar", "dense"]
agents = ["ppo"]
episodes = 16
[blocks.options]
layers = 1
width = 16
heads = 2
num_slots = 8
eval_episodes = 16
warmup_steps = 0
episodes_per_update = 8
"""


def test_bench_with_nothing_lists_what_there_is(capsys):
    main(["bench"])
    out = capsys.readouterr().out
    for name in ("tiny", "standard", "probes", "run FILE", "env", "speed"):
        assert name in out


def test_a_file_is_run_and_its_tables_are_printed(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(TOML)
    args = ["bench", "run", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out"), "--jobs", "1", "--no-plot"]
    main(args)
    out = capsys.readouterr().out
    assert "mine: 2 runs, 0 of them done already" in out
    assert "| ppo, dense | 1 |" in out
    with pytest.raises(SystemExit) as stop:
        main([*args, "--task", "suite_kit:BrokenCopying"])
    assert stop.value.code == 1
    assert "2 of 2 runs FAILED" in " ".join(capsys.readouterr().out.split())


def test_probes_can_be_narrowed_from_the_command_line(tmp_path, capsys):
    names = ["--task", "probe_reply", "--reward", "last", "suite_kit:MyLast", "--seeds", "2"]
    main(["bench", "probes", *names, "--out", str(tmp_path), "--jobs", "1", "--no-plot"])
    out = capsys.readouterr().out
    assert "| suite_kit:MyLast | 1.00 |" in out


def test_wrong_names_are_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "tiny", "--reward", "denso", "--no-plot"])
    assert stop.value.code == 2
    assert "no assigner 'denso'" in " ".join(capsys.readouterr().err.split())
