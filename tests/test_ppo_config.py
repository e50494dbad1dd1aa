import dataclasses

import pytest
from textgym_agents import PPOConfig


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"gamma": 1.1},
        {"gae_lambda": -0.1},
        {"credit": "all"},
        {"credit": "whole_stream", "gae_lambda": 0.9},
        {"credit": "whole_stream", "gamma": 0.9},
        {"clip_coef": 0.0},
        {"clip_coef_high": 0.0},
        {"dual_clip": 1.0},
        {"kl_coef": -1.0},
        {"kl_in": "both"},
        {"kl_estimator": "k4"},
        {"kl_in": "loss", "kl_coef": 0.1},
        {"kl_target": 6.0},
        {"kl_in": "loss", "kl_estimator": "k2"},
        {"kl_estimator": "k3"},
        {"kl_target": 0.0, "kl_coef": 0.1},
        {"kl_horizon": 51.2, "kl_target": 6.0, "kl_coef": 0.1},
        {"target_kl": 0.0},
        {"importance_cap": 0.9},
        {"packing": "tight"},
        {"microbatch_tokens": 0},
        {"precision": "fp16"},
        {"value_coef": float("nan")},
        {"compile": True, "gradient_checkpointing": True},
    ],
)
def test_wrong_options_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        PPOConfig(**changes)


def test_the_range_above_1_is_the_one_below_unless_it_is_given():
    assert PPOConfig(clip_coef=0.2).clip_range == (0.2, 0.2)
    assert PPOConfig(clip_coef=0.2, clip_coef_high=0.28).clip_range == (0.2, 0.28)


def test_options_that_belong_together_are_accepted():
    config = PPOConfig(kl_coef=0.1, kl_in="loss", kl_estimator="k2", kl_target=6.0, kl_horizon=1000.0, dual_clip=3.0)
    assert dataclasses.replace(config, kl_in="reward", kl_estimator="k1").kl_target == 6.0
