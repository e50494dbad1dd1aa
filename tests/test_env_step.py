"""The step benchmark runs and names what it timed; no figure is asserted."""

from textgym_agents.bench.env_step import EnvBenchConfig, bench_env, bench_late

TINY = EnvBenchConfig(slots=4, prompt_tokens=3, new_tokens=50, vocab_size=64, steps=100, repeats=1)


def test_every_door_is_timed_under_both_loads():
    rows = bench_env(TINY)
    assert [row.name.partition(",")[0] for row in rows] == ["step"] * 6 + ["step less its copy of the observation"] * 4
    assert all(row.microseconds > 0 for row in rows)
    assert "context 53" in TINY.describe()


def test_late_rewards_are_timed_against_none(monkeypatch):
    monkeypatch.setattr("textgym_agents.bench.env_step.LATE_STEPS", 12)
    rows = bench_late(TINY)
    assert len(rows) == 3
    assert "against none" in rows[1].note
