import os
import signal
import threading
import time

import pytest
import torch
from textgym_agents.threads import halves_pay, side_by_side, small_backward, small_pass


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("policy", "products", "inside"), [("PASSIVE", 2**20, 1), ("passive", 2**20, 1),
                                                            ("PASSIVE", 2**26, 2), ("ACTIVE", 2**20, 2)])  # fmt: skip
def test_a_small_pass_runs_on_one_thread_where_threads_sleep(two_threads, monkeypatch, policy, products, inside):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    with small_pass(products):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 2


def test_threads_come_back_after_an_error(two_threads, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with pytest.raises(RuntimeError), small_pass(1):
        raise RuntimeError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("policy", "products", "inside"), [("PASSIVE", 2**20, 1), ("PASSIVE", 2**26, 2), ("ACTIVE", 2**20, 2)])
def test_a_small_backward_pass_runs_on_one_thread_and_gives_the_same_gradients(
    two_threads, monkeypatch, policy, products, inside
):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    leaf, seen = torch.arange(3.0, requires_grad=True), []
    square = leaf**2
    square.register_hook(lambda grad: seen.append(torch.get_num_threads()))
    one, other = small_backward(products, square, 3 * leaf)
    (one.sum() + (2 * other).sum()).backward()
    assert leaf.grad.tolist() == [6.0, 8.0, 10.0]
    assert seen == [inside] and torch.get_num_threads() == 2


def test_a_pass_without_gradients_is_given_back_as_it_is(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with torch.no_grad():
        assert small_backward(1, tensor := torch.ones(2)) == (tensor,)


@pytest.mark.parametrize(("policy", "threads", "products", "pay"), [
    ("PASSIVE", 2, 2**23, True), ("PASSIVE", 8, 2**23, True), ("ACTIVE", 2, 2**23, True), ("ACTIVE", 8, 2**23, False),
    ("PASSIVE", 1, 2**23, False), ("PASSIVE", 2, 2**20, False), ("PASSIVE", 2, 2**25, False),
])  # fmt: skip
def test_halves_pay_for_small_passes_on_two_threads_or_where_threads_sleep(monkeypatch, policy, threads, products, pay):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert halves_pay(products) == pay


def test_two_things_are_done_at_once_each_on_one_torch_thread_without_gradients(two_threads):
    meeting = threading.Barrier(2, timeout=60)

    def work():
        meeting.wait()
        return threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.no_grad():
        one, other = side_by_side(work, work)
    assert one == (threading.get_ident(), 1, False, False)
    assert other[0] != one[0] and other[1:] == (1, False, False)
    assert torch.get_num_threads() == 2
    with torch.inference_mode():
        assert side_by_side(work, work)[1] == (other[0], 1, False, True)  # on the same thread as before


@pytest.mark.parametrize("fails", ["first", "second"])
def test_an_error_in_either_is_raised_once_both_are_done(two_threads, fails):
    done = []

    def wrong():
        raise KeyError(fails)

    def slow():
        time.sleep(0.05)
        done.append(True)

    with pytest.raises(KeyError, match=fails):
        side_by_side(*((wrong, slow) if fails == "first" else (slow, wrong)))
    assert done and torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own():
    side_by_side(int, int)
    child = os.fork()
    if not child:
        signal.alarm(60)  # rather than wait for ever
        os._exit(7 if side_by_side(int, int) == (0, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
