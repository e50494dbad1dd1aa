import json
import re

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


def test_another_agent_with_its_options_a_checkpoint_and_a_resumed_run(tmp_path, capsys):
    options = ["--agent", "rloo", "--agent-args", '{"group_size": 4, "epochs": 2}', "--checkpoint-every=1"]
    main(["train", "--out", str(tmp_path), *options, *SMALL])
    assert json.loads((tmp_path / "config.json").read_text())["agent_args"] == {"group_size": 4, "epochs": 2}
    (tmp_path / "result.json").unlink()
    main(["train", "--resume", str(tmp_path)])
    assert json.loads((tmp_path / "result.json").read_text())["best"]["episodes"] == 8
    assert "run folder" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(tmp_path), "--seed=4"])
    assert "leave out seed" in " ".join(capsys.readouterr().err.split())


class Idle:
    """An agent that does nothing."""

    def __init__(self, policy, seed=0):
        self.policy = policy

    def learn(self, envs, budget, callback): ...
    def save(self, folder):
        (folder / "idle.txt").write_text("")

    def load(self, folder): ...


def test_what_is_wrong_with_an_agent_is_told_with_the_folder_that_is_kept(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--agent", f"{__name__}:Idle", "--out", str(tmp_path), *SMALL])
    said = "".join(capsys.readouterr().err.split())
    assert f"{__name__}:Idlereturnedwithoutplayinganepisode" in said
    assert f"thepolicy,asfarasithadlearned,isin{tmp_path}" in said


def test_wrong_names_are_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--task", "number_dual"])
    assert stop.value.code == 2
    assert "Did you mean 'number_duel'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["--episodes-per-update", "64"], "Error parsing config: num_slots is 256 but .* give --num-slots 64 too"),
        (["--learning-rate", "inf"], "Error parsing config.ppo: learning_rate is inf; it must be above 0 and finite"),
    ],
    ids=str,
)
def test_wrong_values_are_told_without_inner_names(capsys, args, match):
    with pytest.raises(SystemExit):
        main(["train", *args])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(match, said)
    assert "dummy" not in said
    assert "see textgym train --help" in said


def test_tasks_are_listed(capsys):
    main(["tasks"])
    out = capsys.readouterr().out
    assert "number_duel" in out
    assert "ThreeSentences-v0" in out
    assert "…" not in out  # an id that is cut cannot be given


def test_bench_speed_prints_the_tables_and_writes_the_report(tmp_path, capsys):
    main(["bench", "speed", "--quick", "--no-plot", "--parts", "share", "--threads", "0", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "environment and bookkeeping" in out
    assert (tmp_path / "speed.md").exists()
    with pytest.raises(SystemExit):
        main(["bench", "nothing"])
