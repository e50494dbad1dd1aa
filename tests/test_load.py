import numpy as np
import pytest
import torch
from textgym_agents.bench.load import Load, LoadConfig, make_lm, make_model


def test_the_load_is_what_it_says():
    load = Load(LoadConfig())
    assert len(load.targets) == len(load.prompts) == 128
    assert (load.targets.min() >= 1, load.targets.max() <= 128) == (True, True)
    assert {len(ids) for ids in load.prompts} <= set(range(4, 17))
    drawn = np.concatenate([Load(LoadConfig(seed=s, max_length=10**6)).targets for s in range(60)])
    assert 28 < drawn.mean() < 36
    assert 0.9 < np.log(drawn[drawn > 3]).std() + 0.15 < 1.1  # sigma 1, less what rounding and the cut at 3 take


def test_uniform_lengths_reach_half_of_the_longest():
    targets = Load(LoadConfig(episodes=2000, lengths="uniform")).targets
    assert (targets.min(), targets.max()) == (1, 64)
    assert 31 < targets.mean() < 34


def test_everyone_gets_the_same_load():
    one, other = Load(LoadConfig(seed=3)), Load(LoadConfig(seed=3))
    assert (one.targets == other.targets).all()
    assert all((a == b).all() for a, b in zip(one.prompts, other.prompts, strict=True))
    assert one.target(one.prompts[5].tolist()) == one.targets[5]


def test_prompts_are_handed_out_in_order_and_again():
    load = Load(LoadConfig(episodes=3))
    rng = np.random.default_rng(0)
    assert [load.sample(rng).metadata["number"] for _ in range(5)] == [0, 1, 2, 0, 1]


def test_prompts_that_are_the_same_are_refused():
    with pytest.raises(ValueError, match="two of the 9000 random prompts are the same"):
        Load(LoadConfig(episodes=9000, vocab_size=5))


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_models_are_seeded_and_leave_the_global_generator_alone(shape):
    config = LoadConfig(shape=shape, vocab_size=64, layers=1, width=16, heads=2, max_length=8)
    before = torch.get_rng_state()
    one, other = make_lm(config, 24), make_lm(config, 24)
    assert torch.equal(before, torch.get_rng_state())
    ids = torch.arange(6)[None]
    assert torch.equal(one(ids).logits, other(ids).logits)
    assert make_model(config, Load(config)).vocab_size == 64


def test_both_shapes_are_about_the_same_size():
    sizes = [sum(p.numel() for p in make_lm(LoadConfig(shape=shape), 144).parameters()) for shape in ("gpt2", "llama")]
    assert abs(sizes[0] / sizes[1] - 1) < 0.03


def test_a_vocabulary_without_letters_for_it_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 70000"):
        LoadConfig(vocab_size=70000)
