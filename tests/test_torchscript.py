"""TorchScript as written: nothing taken apart, nothing left out, and the executor as it was."""

import pytest
import torch
from textgym_agents.torchscript import TorchScript


def test_a_function_calls_the_others_of_its_source():
    source = "def half(x):\n    return x / 2\n\ndef quarter(x):\n    return half(half(x))\n"
    assert TorchScript(source, "quarter")(torch.tensor(8.0)).item() == 2.0


@pytest.mark.parametrize("optimised", [True, False])
def test_the_executor_optimises_nothing_inside_and_is_as_it_was_after(optimised, monkeypatch):
    script, seen = TorchScript("def f(x):\n    return x\n", "f"), []
    monkeypatch.setattr(script, "_function", lambda x: seen.append(torch._C._get_graph_executor_optimize()) or 1 // x)
    before = torch._C._get_graph_executor_optimize()
    torch._C._set_graph_executor_optimize(optimised)
    try:
        assert script(1) == 1
        with pytest.raises(ZeroDivisionError):
            script(0)
        assert seen == [False, False] and torch._C._get_graph_executor_optimize() == optimised
    finally:
        torch._C._set_graph_executor_optimize(before)


def test_what_torchscript_does_not_know_is_refused():
    with pytest.raises(RuntimeError):
        TorchScript("def f(x):\n    return x.no_such_method()\n", "f")
