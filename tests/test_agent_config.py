import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from textgym_agents import BestOfNConfig, CloningConfig, ILQLConfig, ReinforceConfig
from textgym_agents.agent_config import at_least, config_type, fits, in_range, options
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.rloo import GRPO, RLOO, GRPOConfig, RLOOConfig


@dataclass(frozen=True)
class MineConfig:
    rate: float = 0.1
    steps: int = 3
    how: Literal["a", "b"] = "a"
    limit: int | None = None
    episodes_per_update: int = 9


class Mine:
    def __init__(self, policy, config: MineConfig | None = None, *, seed=0): ...


class Plain:
    def __init__(self, policy, seed=0, width=4, episodes_per_update=3): ...


def test_a_config_is_found_by_its_annotation():
    assert [config_type(kind) for kind in (Mine, PPO, RLOO, GRPO, Plain)] == [
        MineConfig,
        PPOConfig,
        RLOOConfig,
        GRPOConfig,
        None,
    ]
    assert config_type(lambda policy, config, seed: None) is None


def test_options_become_the_config_and_defaults_give_way():
    assert options(Mine, {"rate": 1, "limit": None}, {"episodes_per_update": 8, "other": 1}) == {
        "config": MineConfig(rate=1, limit=None, episodes_per_update=8)
    }
    assert options(Mine, {"episodes_per_update": 5}, {"episodes_per_update": 8})["config"].episodes_per_update == 5


def test_options_of_a_plain_class_are_arguments_of_its_constructor():
    assert options(Plain, {"width": 8}, {"episodes_per_update": 8, "other": 1}) == {"width": 8, "episodes_per_update": 8}
    assert options(lambda policy, seed: None, {"any": 8}, {"episodes_per_update": 8}) == {"any": 8}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"rat": 1.0}, "Mine has no option 'rat'. Did you mean 'rate'"),
        ({"zzz": 1.0}, "Its options are episodes_per_update, how, limit, rate, steps"),
        ({"steps": 1.5}, "'steps' of Mine is 1.5; it must be int"),
        ({"steps": True}, "it must be int"),
        ({"rate": "fast"}, "'rate' of Mine is 'fast'; it must be float"),
        ({"how": "c"}, "it must be one of 'a', 'b'"),
        ({"limit": "x"}, "it must be int or None"),
    ],
    ids=str,
)
def test_wrong_options_are_named_with_what_there_is(given, match):
    with pytest.raises(ValueError, match=match):
        options(Mine, given, {})


def test_types_that_json_has_no_word_for_take_everything():
    assert fits(object(), object)
    assert fits("x", str) and not fits(1, str)
    assert fits(1, bool | None) is False
    assert fits(np.float32(1), float) and fits(np.int64(1), int) and not fits(np.float32(1), int)


def test_lists_and_objects_are_held_against_what_they_hold():
    assert fits(["a"], list[str]) and fits(("a",), tuple[str, ...]) and fits({}, dict[str, int])
    assert not fits("a", list[str]) and not fits([1], tuple[str, ...]) and not fits([], dict)


def test_ranges_name_option_value_and_limit():
    config = MineConfig(rate=0.0, steps=-1)
    with pytest.raises(ValueError, match="steps is -1; it must be at least 0"):
        at_least(config, 0, "steps")
    with pytest.raises(ValueError, match=r"rate is 0.0; it must be above 0 and at most 1"):
        in_range(config, "rate", above=0, most=1)
    at_least(config, -1, "steps")
    with pytest.raises(ValueError, match=r"rate is inf; it must be above 0 and finite; leave it out for its default, 0\.1"):
        in_range(MineConfig(rate=math.inf), "rate", above=0)
    in_range(MineConfig(rate=math.inf), "rate", above=0, most=math.inf)
    in_range(MineConfig(rate=1.0), "rate", above=0, most=1)


def test_arguments_of_a_plain_class_are_held_against_their_annotations_and_the_seed_is_the_runs():
    class Annotated:
        def __init__(self, policy, seed: int = 0, rate: float = 0.1, other=None): ...

    assert options(Annotated, {"rate": 1, "other": "x"}, {}) == {"rate": 1, "other": "x"}
    assert options(Plain, {"width": 0.5}, {}) == {"width": 0.5}  # no annotation: the default says that it is a number
    with pytest.raises(ValueError, match="'width' of Plain is 'wide'; it must be float"):
        options(Plain, {"width": "wide"}, {})
    with pytest.raises(ValueError, match="'rate' of Annotated is 'fast'; it must be float"):
        options(Annotated, {"rate": "fast"}, {})
    with pytest.raises(ValueError, match="the seed of Annotated is the run's own"):
        options(Annotated, {"seed": 3}, {})


SHIPPED = (PPOConfig, ReinforceConfig, RLOOConfig, GRPOConfig, BestOfNConfig, CloningConfig, ILQLConfig)


@pytest.mark.parametrize("rate", [math.inf, math.nan, -1e-3, 0.0, "fast", True], ids=str)
@pytest.mark.parametrize("kind", SHIPPED)
def test_no_shipped_agent_takes_a_learning_rate_that_is_none(kind, rate):
    said = rf"learning_rate is {rate!r}; it must be .*; leave it out for its default, {kind.learning_rate}"
    with pytest.raises(ValueError, match=said):
        kind(learning_rate=rate)


def test_a_value_that_is_none_of_the_literals_is_refused_from_python_too():
    with pytest.raises(ValueError, match="advantage is 'rloo'; it must be one of 'leave_one_out', 'standardise'"):
        RLOOConfig(advantage="rloo")
    with pytest.raises(ValueError, match=r"epochs is 1\.5; it must be int"):
        RLOOConfig(epochs=1.5)
    assert RLOOConfig(max_grad_norm=math.inf).max_grad_norm == math.inf  # no clip
