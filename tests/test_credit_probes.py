import gymnasium as gym
import numpy as np
import pytest
from conftest import play_text

import textgym
from textgym.tasks import TASKS, credit_probes
from textgym.tasks.credit_probes import ProbeJoint, ProbeReply, ProbeStreams


@pytest.mark.parametrize(
    ("name", "text", "rewards"),
    [
        ("probe_decisive", "axyxyxyx", [1] + [0] * 7),
        ("probe_decisive", "bxyxyxyx", [0] * 8),
        ("probe_joint", "axcy", [0, 0, 1, 0]),
        ("probe_joint", "bxcy", [0] * 4),
        ("probe_joint", "bydx", [0, 0, 1, 0]),
        ("probe_distractors", "xaxxcx", [0, 1, 0, 0, -0.5, 0]),
        ("probe_length", "aab", [1, 0.5, -0.25, 0]),
        ("probe_length", "aaaa", [1, 0.5, -0.5, -1]),
        ("probe_streams", "bd", [0, 2]),
        ("probe_streams", "ad", [1, 0]),
        ("probe_duel", "35", [1, -1]),
        ("probe_duel", "15", [0, 0]),
        ("probe_pennies", "hH", [1, -1]),
        ("probe_pennies", "tH", [-1, 1]),
    ],
)
def test_what_texts_earn_by_hand(name, text, rewards):
    released = play_text(textgym.resolve_task(name), text)
    assert released.token_rewards.tolist() == pytest.approx(rewards)
    expected = {0, 1} if name in ("probe_streams", "probe_duel", "probe_pennies") else {0}
    assert {*released.streams.tolist()} == expected


def test_a_reply_stands_between_the_choice_and_what_it_earns():
    for text, replied, earned in (("ax", "a+x", 1.0), ("by", "b-y", 0.4), ("ay", "a+y", 0.0)):
        env = gym.make("textgym/ProbeReply-v0", info_text=True)
        env.reset(seed=0)
        info = {}
        for token in ProbeReply().tokenizer.encode(text):
            *_, info = env.step(int(token))
        assert info["text"] == replied
        assert textgym.release(info).token_rewards.tolist() == pytest.approx([0, 0, earned])
        assert textgym.release(info).agent_mask.tolist() == [True, False, True]


def test_apart_streams_earn_apart():
    for text, rewards in (("ac", [1, 1]), ("bc", [0, 1]), ("bd", [0, 0])):
        assert play_text(ProbeStreams(influence=False), text).token_rewards.tolist() == rewards


def test_success_is_the_most_that_there_is_and_a_part_of_a_text_is_judged_as_it_stands():
    assert play_text(ProbeJoint(), "axcx").is_success
    assert not play_text(ProbeJoint(), "axdx").is_success
    assert play_text(ProbeJoint(), "ca").token_rewards.tolist() == [0, 1, 0]


def test_every_probe_is_registered_under_its_own_id():
    probes = {name for name in vars(credit_probes) if name.startswith("Probe") and name != "Probe"}
    assert {target.partition(":")[2] for name, target in TASKS.items() if name.startswith("probe_")} == probes
    for name in probes:
        env = gym.make(f"textgym/{name}-v0")
        env.reset(seed=0)
        *_, terminated, truncated, _ = env.step(np.int64(env.unwrapped.rules.eos_token_id))
        assert (terminated, truncated) == (name != "ProbeReply", False)
