import numpy as np
from textgym_agents.bench_rollout import BenchConfig, _batches, _Load, _slots, bench_rollout
from textgym_agents.model import tiny_gpt2

SMALL = BenchConfig(episodes=9, slots=4, vocab_size=40, layers=1, width=16, heads=2, max_length=12, repeats=2, threads=0)


def test_both_contestants_do_the_same_useful_work():
    load = _Load(SMALL)
    lm = tiny_gpt2(SMALL.vocab_size, 28, layers=1, width=16, heads=2)
    assert _slots(lm, load, SMALL)() == _batches(lm, load, SMALL)() == load.targets.sum()


def test_the_load_is_what_it_says():
    load = _Load(BenchConfig())
    assert len(load.targets) == len(load.prompts) == 128
    assert (load.targets.min() >= 1, load.targets.max() <= 128) == (True, True)
    assert {len(ids) for ids in load.prompts} <= set(range(4, 17))
    drawn = np.concatenate([_Load(BenchConfig(seed=s, max_length=10**6)).targets for s in range(60)])
    assert 28 < drawn.mean() < 36


def test_rows_compare_with_generate():
    rows = bench_rollout(SMALL)
    assert [row.name for row in rows] == ["Hugging Face generate", "textgym collect"]
    assert rows[0].ratio == 1.0
    assert all(row.tokens_per_second > 0 for row in rows)
