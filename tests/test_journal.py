import json
import subprocess
import sys

import pytest

from textgym.suite.journal import Journal, read_rows


def row(key, seed, **fields):
    return {"key": key, "seed": seed, **fields}


def test_rows_come_back_in_their_order(tmp_path):
    with Journal(tmp_path / "deep" / "rows.jsonl") as journal:
        journal.append(row("a", 0, score=0.1))
        journal.append(row("b", 0, text="two\nlines"))
    assert read_rows(tmp_path / "deep" / "rows.jsonl") == [row("a", 0, score=0.1), row("b", 0, text="two\nlines")]
    assert read_rows(tmp_path / "none.jsonl") == []


def test_wherever_a_kill_cuts_the_last_row_the_others_stay_and_it_is_done_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    whole, last = json.dumps(row("a", 0)) + "\n", json.dumps(row("b", 1)) + "\n"
    for cut in range(len(last)):
        path.write_text(whole + last[:cut])
        assert read_rows(path) == [row("a", 0)]
        with Journal(path) as journal:
            journal.append(row("b", 1))
        assert path.read_text() == whole + last


def test_a_run_that_is_done_again_counts_once(tmp_path):
    with Journal(tmp_path / "rows.jsonl") as journal:
        for each in (row("a", 0, error="x"), row("a", 1, error=None), row("a", 0, error=None)):
            journal.append(each)
    assert read_rows(tmp_path / "rows.jsonl") == [row("a", 1, error=None), row("a", 0, error=None)]


@pytest.mark.parametrize("line", ["not json", "[1]", '{"seed": 0}'])
def test_a_whole_line_that_is_no_row_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row("a", 0)) + f"\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*rows\.jsonl is no row"):
        read_rows(tmp_path / "rows.jsonl")


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with Journal(tmp_path / "rows.jsonl") as journal, pytest.raises(ValueError, match="JSON"):
        journal.append(row("a", 0, score=float("nan")))
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of files there")
def test_two_suites_cannot_write_to_one_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = f"from textgym.suite.journal import Journal; Journal({str(path)!r}).__enter__()"
    with Journal(path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another suite is writing" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0  # it has let go
