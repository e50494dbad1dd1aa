"""Whose processor it is: read where Linux writes it, else as the platform names it."""

import pytest
from textgym_agents import processor
from textgym_agents.processor import made_by_amd, made_by_intel, processor_name

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9R14\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\n"
INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n"


@pytest.fixture(autouse=True)
def asked_anew():
    yield
    for question in (made_by_amd, made_by_intel, processor_name):
        question.cache_clear()


def read(monkeypatch, tmp_path, info, platform_says=""):
    file = tmp_path / "cpuinfo"
    if info is not None:
        file.write_text(info)
    monkeypatch.setattr(processor, "_INFO", file)
    monkeypatch.setattr(processor.platform, "processor", lambda: platform_says)
    monkeypatch.setattr(processor.platform, "machine", lambda: "riscv64")
    for question in (made_by_amd, made_by_intel, processor_name):
        question.cache_clear()
    return processor_name(), made_by_amd(), made_by_intel()


def test_linux_says_whose_it_is(monkeypatch, tmp_path):
    assert read(monkeypatch, tmp_path, AMD) == ("AMD EPYC 9R14", True, False)
    assert read(monkeypatch, tmp_path, INTEL) == ("Intel(R) Xeon(R) Processor", False, True)


def test_elsewhere_the_platform_does(monkeypatch, tmp_path):
    windows = "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD"
    assert read(monkeypatch, tmp_path, None, windows) == (windows, True, False)
    assert read(monkeypatch, tmp_path, None, "Intel64 Family 6 Model 85, GenuineIntel")[1:] == (False, True)
    assert read(monkeypatch, tmp_path, ARM, "aarch64") == ("aarch64", False, False)
    assert read(monkeypatch, tmp_path, None) == ("riscv64", False, False)
