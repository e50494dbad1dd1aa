import pytest
import torch
from textgym_agents.threads import small_backward, small_pass


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
