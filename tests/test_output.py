"""Which store an output gets; what the stores do is in their own tests."""

import pytest

import textgym
from textgym.output import make_store
from textgym.rules import Rules
from textgym.store import NumpyStore
from textgym.torch_store import HostStore, TorchStore


def test_each_output_gets_its_store():
    rules = Rules("copying")
    assert type(make_store(rules, 2, "numpy", "cpu")) is NumpyStore
    assert type(make_store(rules, 2, "torch", "cpu")) is HostStore
    assert type(make_store(rules, 2, "torch", "cpu:0")) is TorchStore


def test_what_there_is_not_is_told():
    with pytest.raises(ValueError, match="output is 'jax'; allowed are 'numpy' and 'torch'"):
        textgym.TextGenVectorEnv(2, output="jax")
    with pytest.raises(ValueError, match="device is 'cuda' with output='numpy'"):
        textgym.TextGenVectorEnv(2, device="cuda")
