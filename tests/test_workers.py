"""Real processes: jobs that fail, that end their process, that outlive their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from textgym_agents.workers import Failure, in_processes


def work(job):
    if job == "raise":
        error = KeyError("lost")
        error.add_note("look under the sofa")
        raise error
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return job, torch.get_num_threads(), os.getpid()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_job_that_fails_or_takes_its_process_with_it_leaves_the_others_alone():
    jobs = ["a", "raise", "die", "b", "c"]
    results = dict(in_processes(work, jobs, 2))
    assert [results[job][0] for job in "abc"] == ["a", "b", "c"]
    assert all(results[job][1] == 1 for job in "abc")
    assert results["raise"].error == "KeyError: 'lost'\nlook under the sofa"
    assert "in work" in results["raise"].traceback
    assert results["die"] == Failure("the process ended with exit code -9")
    assert os.getpid() not in {results[job][2] for job in "abc"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_processes_end_with_their_parent_in_the_middle_of_a_job(tmp_path):
    (tmp_path / "jobs.py").write_text(
        "import os, pathlib, time\n"
        "from textgym_agents.workers import in_processes\n"
        "def sleep(job):\n"
        "    path = pathlib.Path('pid.part')\n"
        "    path.write_text(str(os.getpid()))\n"
        "    path.rename('pid')\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    list(in_processes(sleep, [0], 1))\n"
    )
    parent = subprocess.Popen([sys.executable, "jobs.py"], cwd=tmp_path)
    while not (tmp_path / "pid").exists() and parent.poll() is None:  # however long it takes to start
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    until = time.monotonic() + 120
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(pid)


def runs(pid):
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
