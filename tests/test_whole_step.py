import os
import sys
from pathlib import Path

import pytest
from textgym_agents.bench.load import LoadConfig
from textgym_agents.bench.whole_step import OurStep, StepConfig, TrlStep, step_contestants

SMALL = LoadConfig(episodes=8, mean_length=5.0, max_length=12, vocab_size=40, layers=1, width=16, heads=2)
STEP = StepConfig(slots=4, minibatch=4, epochs=2, threads=0, group=2)


@pytest.mark.parametrize("separate_value", [False, True])
def test_our_step_plays_the_load_and_learns_from_it(separate_value):
    step = OurStep(SMALL, STEP, separate_value=separate_value)
    assert (step.ppo.policy.model.value_lm is not None) == separate_value
    before = step.ppo.policy.model.lm.get_input_embeddings().weight.clone()
    episodes, seconds = step.run()
    assert episodes == 8
    assert seconds > 0
    assert step.ppo.reference is not None
    assert not before.equal(step.ppo.policy.model.lm.get_input_embeddings().weight)
    step.close()


def test_who_cannot_run_is_named_with_what_to_install():
    contestants, missing = step_contestants(SMALL, STEP, None, 4.0)
    assert set(missing) >= {"TRL PPO", "TRL GRPO (no value network)"}
    assert "trl == 1.12.0" in missing["TRL PPO"]
    assert next(iter(contestants)).startswith("textgym")
    for contestant in contestants.values():
        contestant.close()


def test_a_process_that_ends_says_what_it_wrote():
    """This interpreter need not have TRL; if it has, the load is not one that TRL could take a step on."""
    with pytest.raises(RuntimeError, match=r"TRL's NOTHING ended before it had taken its step[\s\S]*Error"):
        TrlStep(Path(sys.executable), "nothing", SMALL, STEP)


@pytest.mark.parametrize("kind", ["ppo", "grpo", "grpo-continuous"])
def test_trl_takes_one_step_at_a_time(kind):
    python = os.environ.get("TEXTGYM_TRL_PYTHON")
    if not python:
        pytest.skip("TEXTGYM_TRL_PYTHON names no Python with trl 1.12")
    step = TrlStep(Path(python), kind, SMALL, STEP)
    for _ in range(2):
        episodes, seconds = step.run()  # raises unless exactly the load's tokens were generated
        assert episodes == 8
        assert seconds > 0
    step.close()
