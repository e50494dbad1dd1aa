import json
import re
from dataclasses import replace

import pytest
from textgym_agents.ppo import PPOConfig
from textgym_agents.train_config import JSON, TrainConfig, resumed, write_config

from textgym.tasks.number_duel import NumberDuel

CONFIG = TrainConfig(
    agent="rloo",
    agent_args={"group_size": 4},
    lora_rank=2,
    lora_targets=("c_attn",),
    seed=3,
    checkpoint_every=2,
    ppo=PPOConfig(episodes_per_update=512),
)


def test_a_resumed_run_has_the_options_that_it_was_begun_with(tmp_path):
    write_config(CONFIG, tmp_path / "config.json")
    assert resumed(TrainConfig(resume=tmp_path)) == replace(CONFIG, out=tmp_path, resume=tmp_path)


def test_options_beside_the_folder_are_refused(tmp_path):
    write_config(CONFIG, tmp_path / "config.json")
    with pytest.raises(ValueError, match="leave out updates, seed"):
        resumed(TrainConfig(resume=tmp_path, seed=9, updates=3))
    with pytest.raises(ValueError, match="holds no run to resume"):
        resumed(TrainConfig(resume=tmp_path / "nothing"))


def test_objects_are_taken_from_who_resumes(tmp_path):
    task = NumberDuel()
    write_config(replace(CONFIG, task=task), tmp_path / "config.json")
    again = resumed(TrainConfig(task=task, resume=tmp_path))
    assert again.task is task
    assert again.agent == "rloo"


def test_what_is_written_is_in_the_order_of_the_fields(tmp_path):
    write_config(CONFIG, tmp_path / "config.json")
    names = list(json.loads((tmp_path / "config.json").read_text()))
    assert names[:4] == ["task", "task_args", "agent", "agent_args"]


def test_a_negative_checkpoint_every_is_refused():
    with pytest.raises(ValueError, match="checkpoint_every is -1"):
        TrainConfig(checkpoint_every=-1)


def test_more_slots_than_an_update_has_episodes_are_refused_with_the_options_to_give():
    with pytest.raises(ValueError, match=r"num_slots is 256 but an update collects 64 .* give --num-slots 64 too, or"):
        TrainConfig(ppo=PPOConfig(episodes_per_update=64))


@pytest.mark.parametrize(
    ("text", "match"),
    [("rate=3", "Expecting value"), ("[1]", "it is a list"), ('{"rate": Infinity}', "Infinity is no number")],
    ids=str,
)
def test_what_is_no_json_object_is_said_with_one_that_is(text, match):
    assert JSON.instance_from_str(['{"rate": 1}']) == {"rate": 1}
    with pytest.raises(ValueError, match=rf"{re.escape(repr(text))} is no JSON object \({match}.*\); give one, such as"):
        JSON.instance_from_str([text])
