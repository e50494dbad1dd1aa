import pytest
import torch
from textgym_agents.threads import small_pass


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
