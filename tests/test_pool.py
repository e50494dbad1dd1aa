"""The reward pool: calls that raise, hang or die fail their episode and no other."""

import os
import threading
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
from conftest import build_episode

from textgym import Release
from textgym.pool import Job, RewardPool


def released(episode, slot):
    count = len(episode.ids)
    return Release(episode.episode_id, slot, np.ones(count, np.float32), np.zeros(count, np.int64), episode.agent_mask, count,
                   True, False, False, 0)  # fmt: skip


def plain(episodes, slots):
    return [released(episode, slot) for episode, slot in zip(episodes, slots, strict=True)]


def in_a_process(episodes, slots):
    assert not episodes[0].ids.flags.writeable  # pickling forgets it
    return plain(episodes, slots)


def bad_seven(episodes, slots):
    if any(episode.episode_id == 7 for episode in episodes):
        raise ValueError("seven")
    return plain(episodes, slots)


def deadly_seven(episodes, slots):
    if any(episode.episode_id == 7 for episode in episodes):
        os._exit(3)
    return plain(episodes, slots)


def slow_seven(episodes, slots):
    if any(episode.episode_id == 7 for episode in episodes):
        time.sleep(20)
    return plain(episodes, slots)


class StubbornError(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.lock = threading.Lock()  # cannot be pickled


def stubborn(episodes, slots):
    raise StubbornError(1, 2)


class TwoArgumentsError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")  # pickles, and cannot be built again


def two_arguments(episodes, slots):
    raise TwoArgumentsError(1, 2)


def leaves(episodes, slots):
    raise SystemExit("enough")


def jobs(numbers):
    return [Job(i, build_episode("ab", episode_id=number)) for i, number in enumerate(numbers)]


def outcomes(pool, numbers):
    pool.submit(jobs(numbers))
    pool.wait(0)
    assert pool.unfinished == 0
    out = {job.episode.episode_id: (release, error) for job, release, error in pool.take()}
    pool.close()
    assert sorted(out) == sorted(numbers)
    return out


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_every_job_has_one_outcome_with_its_slot(kind):
    out = outcomes(RewardPool(plain if kind == "thread" else in_a_process, 2, kind), range(20))
    assert all(error is None for _, error in out.values())
    assert [out[number][0].slot for number in range(20)] == list(range(20))
    assert not out[0][0].token_rewards.flags.writeable or kind == "thread"


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_call_that_raises_fails_its_episode_and_no_other(kind):
    out = outcomes(RewardPool(bad_seven, 1, kind), range(5, 10))
    errors = {number: error for number, (_, error) in out.items() if error is not None}
    assert list(errors) == [7]
    assert isinstance(errors[7], ValueError) and str(errors[7]) == "seven"
    if kind == "process":
        assert "bad_seven" in "".join(errors[7].__notes__)  # where it was raised


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_call_that_hangs_fails_its_episode_at_the_time_limit_F30(kind):
    out = outcomes(RewardPool(slow_seven, 1, kind, timeout=1.0), range(5, 10))
    errors = {number: error for number, (_, error) in out.items() if error is not None}
    assert list(errors) == [7]
    assert isinstance(errors[7], TimeoutError) and "reward_timeout=1.0" in str(errors[7])


def test_a_worker_that_dies_fails_its_episode_and_is_replaced():
    out = outcomes(RewardPool(deadly_seven, 1, "process"), range(5, 10))
    errors = {number: error for number, (_, error) in out.items() if error is not None}
    assert list(errors) == [7]
    assert "died (exit code 3) while rewarding episodes [7]" in str(errors[7])


def test_an_answer_that_cannot_be_sent_is_an_error_not_a_silence():
    ((_, error),) = outcomes(RewardPool(stubborn, 1, "process"), [1]).values()
    assert "the reward worker raised StubbornError: 1" in str(error)
    assert "in stubborn" in str(error)  # where it was raised


def test_one_call_takes_what_has_gathered_and_workers_share_it():
    sizes, gate = [], threading.Event()

    def count(episodes, slots):
        gate.wait()
        sizes.append(len(episodes))
        return plain(episodes, slots)

    pool = RewardPool(count, 1)
    for number in range(9):
        pool.submit(jobs([number]))
        if number == 0:
            while pool._queue:  # the worker has taken it
                time.sleep(0.001)
    gate.set()
    pool.wait(0)
    pool.close()
    assert sizes == [1, 8]


def test_waiting_stops_as_soon_as_few_enough_are_unfinished():
    gate = threading.Semaphore(0)

    def one_by_one(episodes, slots):
        for _ in episodes:
            gate.acquire()
        return plain(episodes, slots)

    pool = RewardPool(one_by_one, 1)
    pool.submit(jobs([1]))
    while pool._queue:
        time.sleep(0.001)
    pool.submit(jobs([2]))
    gate.release()
    pool.wait(1)
    assert pool.unfinished == 1
    gate.release()
    pool.wait(0)
    pool.close()


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="allowed are 'thread' and 'process'"):
        RewardPool(plain, 1, "fiber")
    with pytest.raises(ValueError, match="give seconds above 0"):
        RewardPool(plain, 1, timeout=0)


def test_a_time_limit_is_seen_without_waiting_for_it():
    pool = RewardPool(slow_seven, 1, timeout=0.2)
    pool.submit(jobs([7]))
    taken = []
    while not taken:
        time.sleep(0.01)
        taken = pool.take()
    assert isinstance(taken[0].error, TimeoutError)
    pool.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_what_would_end_a_thread_silently_is_an_error_of_the_call(kind):
    ((_, error),) = outcomes(RewardPool(leaves, 1, kind), [1]).values()
    assert "raised SystemExit: enough" in str(error)


def test_an_error_that_cannot_be_built_again_arrives_with_its_text():
    ((_, error),) = outcomes(RewardPool(two_arguments, 1, "process"), [1]).values()
    assert "the reward worker raised TwoArgumentsError: 1 and 2" in str(error)


def test_a_process_that_died_while_idle_costs_no_episode():
    pool = RewardPool(plain, 1, "process")
    for number in (1, 2):
        pool.submit(jobs([number]))
        pool.wait(0)
        ((_, release, error),) = pool.take()
        assert (release.episode_id, error) == (number, None)
        process = pool._workers[0].process
        process.kill()
        process.join()
    pool.close()


def test_what_cannot_be_sent_to_a_process_is_refused_before_one_is_hired():
    with pytest.raises(ValueError, match=r"cannot be sent to a process .*\(no lambda"):
        RewardPool(lambda episodes, slots: [], 1, "process")


@pytest.mark.parametrize(("workers", "timeout"), [(-1, None), (1.5, None), (True, None), (1, float("inf")), (1, "3"), (1, -1)])
def test_options_of_a_wrong_kind_are_named(workers, timeout):
    with pytest.raises(ValueError, match="reward_"):
        RewardPool(plain, workers, timeout=timeout)


def test_a_closed_pool_takes_nothing_and_waits_for_nothing():
    pool = RewardPool(slow_seven, 1)
    pool.submit(jobs([7, 7]))
    pool.close()
    pool.wait(0)
    with pytest.raises(gym.error.ClosedEnvironmentError):
        pool.submit(jobs([1]))
    pool.close()


class MuteError(BaseException):
    def __str__(self):
        raise RuntimeError("no words")


def mute(episodes, slots):
    raise MuteError


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_an_error_that_cannot_be_shown_is_an_error_all_the_same(kind):
    ((_, error),) = outcomes(RewardPool(mute, 1, kind), [1]).values()
    assert "MuteError, which cannot be shown" in str(error)


@dataclass
class Heavy:
    load: bytes

    def __call__(self, episodes, slots):
        return plain(episodes, slots)


def test_a_large_task_reaches_its_process():
    ((release, error),) = outcomes(RewardPool(Heavy(bytes(1_000_000)), 1, "process"), [3]).values()
    assert (release.episode_id, error) == (3, None)


def test_workers_that_could_be_hired_are_let_go_where_others_could_not(monkeypatch):
    start, hired = threading.Thread.start, []

    def scarce(thread):
        if len(hired) == 3:
            raise RuntimeError("can't start new thread")
        hired.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError, match="new thread"):
        RewardPool(plain, 6)
    for thread in hired:
        thread.join(10)
    assert [thread.is_alive() for thread in hired] == [False] * 3
