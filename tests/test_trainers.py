"""Episodes in other trainers' shapes: hand-made numbers, and sums that stay for random episodes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import Episode, Ledger, Prompt, Release
from textgym.export import rewards_to_go, to_skyrl, to_trl, to_verifiers, to_verl

BOTH = ("streams", "truncation")


def build_pair(
    rewards,
    *,
    prompt=(5,),
    mask=None,
    streams=None,
    episode_id=0,
    ended_by="eos",
    truncated=False,
    criteria=None,
    group_id=None,
):
    """An episode of one letter per token, and its release."""
    count = len(rewards)
    mask = np.ones(count, dtype=np.bool_) if mask is None else np.array(mask, dtype=np.bool_)
    streams = np.zeros(count, dtype=np.int64) if streams is None else np.array(streams)
    edges = np.cumsum(np.diff(mask.astype(np.int64), prepend=1) > 0)
    episode = Episode(
        prompt=Prompt("p", np.array(prompt), {"answer": 3}, group_id),
        ids=np.arange(10, 10 + count),
        text="abcdefghijklmnop"[:count],
        offsets=np.array([(i, i + 1) for i in range(count)], dtype=np.int64).reshape(count, 2),
        agent_mask=mask,
        turns=edges.astype(np.int64),
        ended_by=ended_by,
        episode_id=episode_id,
    )
    release = Release(
        episode_id=episode_id,
        slot=0,
        token_rewards=np.array(rewards, dtype=np.float32),
        streams=np.where(mask, streams, -1),
        agent_mask=mask,
        num_tokens=count,
        terminated=not truncated,
        truncated=truncated,
        is_success=True,
        group_id=-1 if group_id is None else group_id,
        criteria=criteria or {},
        ledger=Ledger(float(np.float32(rewards).sum())),
    )
    return episode, release


@st.composite
def random_pairs(draw):
    """Episodes with replies, streams, empty criteria and truncation, as an environment could release them."""
    pairs = []
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 9))
        mask = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
        mask[0] = True
        numbers = st.floats(-100, 100, width=32)
        rewards = np.where(mask, draw(st.lists(numbers, min_size=count, max_size=count)), 0)
        streams = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
        prompt = draw(st.lists(st.integers(0, 20), min_size=1, max_size=4))
        truncated = draw(st.booleans())
        criteria = draw(st.dictionaries(st.text(max_size=3), numbers, max_size=2))
        pairs.append(
            build_pair(
                rewards,
                prompt=prompt,
                mask=mask,
                streams=streams,
                episode_id=number,
                ended_by="length" if truncated else draw(st.sampled_from(["eos", "stop", "task", "length"])),
                truncated=truncated,
                criteria=criteria,
                group_id=draw(st.one_of(st.none(), st.integers(0, 3))),
            )
        )
    return pairs


PAIRS = [
    build_pair([1, 0, 2], prompt=(5, 6), streams=[0, 1, 0], episode_id=0, criteria={"form": 3.0}),
    build_pair([0.5, 0, 0, -1], mask=[1, 0, 0, 1], episode_id=1, ended_by="length"),
]


def test_rewards_to_go_stay_in_their_stream_and_pass_over_replies():
    np.testing.assert_array_equal(rewards_to_go(PAIRS[0][1]), [3, 0, 2])
    np.testing.assert_array_equal(rewards_to_go(PAIRS[1][1]), [-0.5, 0, 0, -1])


def test_trl_gets_prompts_padded_left_and_completions_right_with_advantages_per_token():
    batch = to_trl(PAIRS, pad_token_id=9)
    assert batch["prompt_ids"].tolist() == [[5, 6], [9, 5]]
    assert batch["prompt_mask"].tolist() == [[1, 1], [0, 1]]
    assert batch["completion_ids"].tolist() == [[10, 11, 12, 9], [10, 11, 12, 13]]
    assert batch["completion_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["tool_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1]]
    assert batch["advantages"].tolist() == [[3, 0, 2, 0], [-0.5, 0, 0, -1]]
    assert batch["advantages"].dtype == batch["token_rewards"].dtype == np.float32
    assert batch["num_items_in_batch"] == 5
    given = to_trl(PAIRS, pad_token_id=9, advantages=[[1, 2, 3], [4, 0, 0, 5]])["advantages"]
    assert given.tolist() == [[1, 2, 3, 0], [4, 0, 0, 5]]


def test_verl_gets_scores_per_token_beside_the_responses():
    batch = to_verl(PAIRS, pad_token_id=9, prompt_length=3, response_length=5, lose=["streams"])
    assert batch["prompts"].tolist() == [[9, 5, 6], [9, 9, 5]]
    assert batch["responses"].tolist() == [[10, 11, 12, 9, 9], [10, 11, 12, 13, 9]]
    assert batch["response_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 1, 0]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0]]
    assert batch["position_ids"].tolist() == [[0, 0, 1, 2, 3, 4, 4, 4], [0, 0, 0, 1, 2, 3, 4, 4]]
    assert batch["input_ids"].tolist() == [[9, 5, 6, 10, 11, 12, 9, 9], [9, 9, 5, 10, 11, 12, 13, 9]]
    assert batch["token_level_scores"].tolist() == [[1, 0, 2, 0, 0], [0.5, 0, 0, -1, 0]]
    assert batch["uid"].tolist() == ["episode 0", "episode 1"]
    with pytest.raises(ValueError, match="response_length is 3 but the longest has 4 tokens"):
        to_verl(PAIRS, pad_token_id=9, response_length=3, lose=["streams"])


def test_skyrl_gets_lists():
    output = to_skyrl(PAIRS, lose=["streams"])
    assert output["prompt_token_ids"] == [[5, 6], [5]]
    assert output["response_ids"] == [[10, 11, 12], [10, 11, 12, 13]]
    assert output["rewards"] == [[1, 0, 2], [0.5, 0, 0, -1]]
    assert output["loss_masks"] == [[1, 1, 1], [1, 0, 0, 1]]
    assert output["stop_reasons"] == ["stop", "length"]


def test_verifiers_gets_a_chain_of_messages_with_everything_in_it():
    one, two = to_verifiers(PAIRS)
    assert [node["message"] for node in two["nodes"]] == [
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "bc"},
        {"role": "assistant", "content": "d"},
    ]
    assert [node["parent"] for node in two["nodes"]] == [None, 0, 1, 2]
    assert [node["token_ids"] for node in two["nodes"]] == [[5], [10], [11, 12], [13]]
    assert [node.get("advantages") for node in two["nodes"]] == [None, [-0.5], None, [-1]]
    assert one["info"]["textgym"]["streams"] == [0, 1, 0]
    assert one["metrics"] == {"form": 3.0}
    assert one["task"]["data"] == {"prompt": "p", "metadata": {"answer": 3}}
    assert (one["stop_condition"], two["stop_condition"]) == ("agent_completed", "max_output_tokens")
    assert json.loads(json.dumps(one)) == one


@given(random_pairs())
def test_the_sum_of_every_export_is_what_was_released(pairs):
    paid = [float(release.token_rewards.sum(dtype=np.float64)) for _, release in pairs]
    trl = to_trl(pairs, pad_token_id=0, lose=["truncation"])
    verl = to_verl(pairs, pad_token_id=0, lose=BOTH)
    for scores, mask in (
        (trl["token_rewards"], trl["completion_mask"] * trl["tool_mask"]),
        (verl["token_level_scores"], verl["response_mask"]),
        (verl["rm_scores"], verl["response_mask"]),
    ):
        np.testing.assert_allclose((scores.astype(np.float64) * mask).sum(axis=1), paid, atol=1e-9)
    assert [sum(rewards) for rewards in to_skyrl(pairs, lose=BOTH)["rewards"]] == pytest.approx(paid)
    for record, (episode, release), total in zip(to_verifiers(pairs), pairs, paid, strict=True):
        assert record["rewards"]["textgym"]["score"] == total
        assert sum(record["info"]["textgym"]["token_rewards"]) == pytest.approx(total)
        assert "".join(node["message"]["content"] for node in record["nodes"][1:]) == episode.text
        assert [i for node in record["nodes"][1:] for i in node["token_ids"]] == episode.ids.tolist()
        assert [m for node in record["nodes"][1:] for m in node["mask"]] == episode.agent_mask.tolist()
        # What the first agent token of each stream sees is the stream's whole reward.
        firsts = {int(s): int(np.flatnonzero(release.streams == s)[0]) for s in np.unique(release.streams[release.agent_mask])}
        assert sum(rewards_to_go(release)[list(firsts.values())]) == pytest.approx(total)


def test_what_a_format_cannot_carry_is_refused_until_it_is_given_up():
    for export in (to_skyrl, lambda pairs, **kw: to_verl(pairs, pad_token_id=0, **kw)):
        with pytest.raises(ValueError, match=r"episode 0 has streams \[0, 1\].*lose=\('streams',\)"):
            export(PAIRS)
    cut = [build_pair([1.0], ended_by="length", truncated=True, episode_id=4)]
    for export in (to_skyrl, lambda p, **kw: to_verl(p, pad_token_id=0, **kw), lambda p, **kw: to_trl(p, pad_token_id=0, **kw)):
        with pytest.raises(ValueError, match="episode 4 was truncated"):
            export(cut)
        export(cut, lose=["truncation"])
    assert to_trl(cut, pad_token_id=0, advantages=[[2.5]])["advantages"].tolist() == [[2.5]]
    assert to_verifiers(cut)[0]["info"]["textgym"]["truncated"]
    with pytest.raises(ValueError, match="lose names 'stream'"):
        to_skyrl(PAIRS, lose=["stream"])


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="no episode"):
        to_trl([], pad_token_id=0)
    with pytest.raises(ValueError, match="episode 0 of 3 tokens stands beside the release of episode 1"):
        to_skyrl([(PAIRS[0][0], PAIRS[1][1])])
    with pytest.raises(ValueError, match=r"episode 1 have shape \(4,\)"):
        to_trl(PAIRS, pad_token_id=0, advantages=[[0, 0, 0], [0, 1, 0, 0]])
    with pytest.raises(ValueError, match="1 arrays of advantages for 2"):
        to_trl(PAIRS, pad_token_id=0, advantages=[[0, 0, 0]])


def test_episodes_of_one_group_share_their_uid():
    batch = to_verl([build_pair([1], group_id=2, episode_id=i) for i in range(2)], pad_token_id=0)
    assert batch["uid"].tolist() == ["group 2"] * 2
