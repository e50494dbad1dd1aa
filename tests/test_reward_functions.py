"""Reward functions of TRL and trlX as they are: their numbers stay, dense lists reach sampled tokens or are refused."""

import asyncio
import re

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

import textgym
from textgym import Episode, Prompt, TextTokenizer, resolve
from textgym.integrations.reward_functions import trl_rewards, trlx_rewards


def episode_of(tokenizer, ids, prompt=None, mask=None, episode_id=5):
    text, offsets = tokenizer.offsets(ids)
    return Episode(
        prompt=prompt or Prompt("q", np.array([2])),
        ids=np.array(ids, dtype=np.int64),
        text=text,
        offsets=offsets,
        agent_mask=np.ones(len(ids), dtype=np.bool_) if mask is None else np.array(mask, dtype=np.bool_),
        turns=np.zeros(len(ids), dtype=np.int64),
        ended_by="eos",
        episode_id=episode_id,
    )


def accuracy(completions, answer, **kwargs):
    return [completion == right for completion, right in zip(completions, answer, strict=True)]


def length(prompts, completions, completion_ids, **kwargs):
    return [float(len(ids)) if prompt == "a" else None for prompt, ids in zip(prompts, completion_ids, strict=True)]


def test_trl_functions_become_weighted_criteria_of_the_environment(letters):
    env = textgym.TextGenEnv(
        prompts=[{"prompt": "a", "answer": "cd"}],
        tokenizer=letters,
        reward_fn=trl_rewards([accuracy, length]),
        weights={"length": 0.5},
    )
    env.reset(seed=0)
    for token in [*letters.encode("cd").tolist(), letters.eos_token_id]:
        _, reward, *_, info = env.step(token)
    release = textgym.release(info)
    assert reward == 1.0 + 0.5 * 3
    assert release.criteria == {"accuracy": 1.0, "length": 3.0}
    assert release.token_rewards.tolist() == [0.0, 0.0, 2.5]
    assert release.ledger.accounts == {"weight/length": 1.5}


def test_none_pays_nothing_and_stands_in_the_ledger(letters):
    episode = episode_of(letters, [3, 1], Prompt("b", np.array([3]), {"answer": "x"}))
    (resolved,) = resolve(trl_rewards([accuracy, length])([episode]), [episode])
    assert resolved.criteria == {"accuracy": 0.0, "length": 0.0}
    assert "nothing" in resolved.ledger.accounts
    with pytest.raises(ValueError, match="no reward function applies to episode 5: all of length returned None"):
        trl_rewards(length)([episode])


def test_conversations_come_as_messages(letters):
    messages = [{"role": "user", "content": "hi"}]
    seen = {}

    def spy(prompts, completions, **columns):
        seen.update(prompts=prompts, completions=completions, columns=columns)
        return [1] * len(prompts)

    episode = episode_of(letters, [2, 3], Prompt("<user>hi", np.array([3]), {"level": 2, "prompt": messages}))
    assert trl_rewards(spy, extra={"trainer_state": "state"})([episode]) == [{"spy": 1}]
    assert seen["prompts"] == [messages]
    assert seen["completions"] == [[{"role": "assistant", "content": "ab"}]]
    assert seen["columns"] == {"completion_ids": [[2, 3]], "level": [2], "trainer_state": "state"}
    replied = episode_of(letters, [2, 3], episode.prompt, mask=[True, False])
    with pytest.raises(ValueError, match="episode 5 is a conversation with replies"):
        trl_rewards(spy)([replied])


def test_coroutines_run_side_by_side_also_where_a_loop_runs_already(letters):
    met = []

    async def first(completions, **kwargs):
        met.append("first")
        while "second" not in met:
            await asyncio.sleep(0)
        return [1.0] * len(completions)

    class Second:  # a callable object is named by its class
        async def __call__(self, completions, **kwargs):
            met.append("second")
            return [2.0] * len(completions)

    function = trl_rewards([first, Second(), lambda completions, **kwargs: [3.0] * len(completions)])
    want = [{"first": 1.0, "Second": 2.0, "<lambda>": 3.0}]
    assert function([episode_of(letters, [2])]) == want

    async def notebook():
        return function([episode_of(letters, [2])])

    assert asyncio.run(notebook()) == want


@pytest.mark.parametrize(
    ("returned", "said"),
    [([1.0, 2.0], "returned 2 rewards for 1"), (1.0, "returned a float for 1"), (None, "returned a NoneType")],
)
def test_another_number_of_rewards_is_refused(letters, returned, said):
    with pytest.raises(ValueError, match=said):
        trl_rewards(lambda **kwargs: returned)([episode_of(letters, [2])])
    with pytest.raises(ValueError, match=said):
        trlx_rewards(lambda **kwargs: returned, letters)([episode_of(letters, [2])])


def test_names_that_clash_and_uneven_metadata_are_refused(letters):
    with pytest.raises(ValueError, match="each with a name of its own"):
        trl_rewards([accuracy, accuracy])
    with pytest.raises(ValueError, match="one or more"):
        trl_rewards([])
    one = episode_of(letters, [2], Prompt("a", np.array([2]), {"answer": 1}))
    for prompt in (Prompt("a", np.array([2])), Prompt("a", np.array([2]), {"answer": 1, "more": 2})):
        with pytest.raises(ValueError, match="prompt of episode 6 has the metadata"):
            trl_rewards(accuracy)([one, episode_of(letters, [2], prompt, episode_id=6)])
    for metadata, extra in (({"completions": 1}, {}), ({"a": 1}, {"a": 2}), ({}, {"prompts": 1})):
        with pytest.raises(ValueError, match="rename it"):
            trl_rewards(accuracy, extra=extra)([episode_of(letters, [2], Prompt("a", np.array([2]), metadata))])


def test_trlx_sees_texts_with_end_of_text_written_out(letters):
    seen = {}

    def spy(samples, prompts, outputs, tokenizer, **columns):
        seen.update(samples=samples, prompts=prompts, outputs=outputs, tokenizer=tokenizer, columns=columns)
        return torch.tensor([0.25, 1.5])

    episodes = [episode_of(letters, ids, Prompt("ab", np.array([2, 3]), {"k": 7})) for ids in ([4, 1], [4, 5])]
    scores = trlx_rewards(spy, letters)(episodes)
    assert [r.token_rewards.tolist() for r in resolve(scores, episodes)] == [[0, 0.25], [0, 1.5]]
    assert seen["samples"] == ["abc</s>", "abcd"]
    assert (seen["prompts"], seen["outputs"], seen["columns"]) == (["ab", "ab"], ["c</s>", "cd"], {"k": [7, 7]})
    assert seen["tokenizer"] is letters.source


def test_a_dense_list_lies_where_it_stood_if_encoding_again_gives_the_sampled_ids(letters):
    episode = episode_of(letters, [2, 3, 4, 1])
    for values in ([1.0, 0.0, -2.0, 0.5], np.array([1.0, 0, -2, 0.5]), torch.tensor([1.0, 0, -2, 0.5])):
        (laid,) = trlx_rewards(lambda v=values, **kwargs: [v], letters, dense=True)([episode])
        assert laid.tolist() == [1.0, 0.0, -2.0, 0.5]


@pytest.fixture(scope="module")
def merging(byte_bpe) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(byte_bpe.to_str()), eos_token_id=0)


def test_a_dense_list_goes_by_characters_where_encoding_again_gives_other_ids_F21(merging):
    again = merging.encode("hello").tolist()
    letters = [merging.backend.token_to_id(letter) for letter in "hello"]
    assert len(again) < 5  # the sampler spelled what the tokenizer would merge
    episode = episode_of(merging, [*letters, 0])
    values = [float(i + 1) for i in range(len(again) + 1)]
    (laid,) = trlx_rewards(lambda **kwargs: [values], merging, dense=True)([episode])
    ends = merging.offsets(again)[1][:, 1]
    want = np.zeros(6)
    want[ends - 1] = values[:-1]
    want[5] = values[-1]
    assert laid.tolist() == want.tolist()


@given(st.data(), st.booleans())
def test_a_dense_list_keeps_its_sum_or_is_refused_by_name(merging, data, eos):
    ids = data.draw(st.lists(st.integers(0, len(merging) - 1), min_size=1, max_size=10))
    episode = episode_of(merging, [*ids, 0] if eos else ids)
    offsets = merging.offsets(merging.encode(episode.text))[1]
    count = len(offsets) + bool(episode.ids[-1] == 0)
    values = data.draw(st.lists(st.integers(-8, 8).map(float), min_size=count, max_size=count))
    try:
        (laid,) = trlx_rewards(lambda **kwargs: [values], merging, dense=True)([episode])
    except ValueError as error:
        assert re.search("episode 5 has .* no sampled token", str(error), re.DOTALL)  # noqa: PT017
        return
    assert laid.sum() == sum(values)
    owner = {}  # the last sampled token that holds each character
    for token, (start, end) in enumerate(episode.offsets.tolist()):
        owner |= dict.fromkeys(range(start, end), token)
    want = np.zeros(len(episode.ids))
    for value, (_, end) in zip(values, offsets.tolist(), strict=False):
        want[owner[end - 1]] += value
    want[-1] += values[-1] if count > len(offsets) else 0.0
    assert laid.tolist() == want.tolist()


def test_dense_scores_without_a_sampled_token_are_refused(letters, merging):
    episode = episode_of(letters, [2, 3])
    for values, said in (([1.0], "encodes to 2 tokens"), (1.0, "of shape"), ("ab", "a str"), ([[1.0, 2.0]], "of shape")):
        with pytest.raises(ValueError, match=said):
            trlx_rewards(lambda v=values, **kwargs: [v], letters, dense=True)([episode])
    spelled = [merging.backend.token_to_id(letter) for letter in "hello"]
    replied = episode_of(merging, spelled, mask=[True] * 4 + [False])
    count = len(merging.encode("hello"))
    with pytest.raises(ValueError, match="no sampled token of the agent stands for it"):
        trlx_rewards(lambda **kwargs: [[0.0] * (count - 1) + [1.0]], merging, dense=True)([replied])


def test_a_dense_list_of_a_tokenizer_that_rewrites_text_is_refused():
    backend = textgym.symbol_tokenizer([*"ABab"]).backend
    backend.normalizer = normalizers.Lowercase()
    tokenizer = TextTokenizer(backend, eos_token_id=1)
    episode = episode_of(tokenizer, [2, 3, 1])  # "AB", which encodes to "ab"
    (laid,) = trlx_rewards(lambda **kwargs: [[0.0, 0.0, 2.0]], tokenizer, dense=True)([episode])
    assert laid.tolist() == [0.0, 0.0, 2.0]  # end-of-text is end-of-text
    with pytest.raises(ValueError, match=r"episode 5 has 1.0 on token 1 .*'b', and no sampled token"):
        trlx_rewards(lambda **kwargs: [[0.0, 1.0, 0.0]], tokenizer, dense=True)([episode])


def test_a_list_is_no_single_score(letters):
    for score in ([1.0], [1.0, 2.0], "1"):
        with pytest.raises(ValueError, match="dense=True"):
            trlx_rewards(lambda s=score, **kwargs: [s], letters)([episode_of(letters, [2, 3])])


def test_a_conversational_dataset_reaches_a_function_of_trl_as_it_would_there(chat_tokenizer):
    rows = [{"prompt": [{"role": "user", "content": str(n)}], "answer": str(n)} for n in range(3)]
    seen = []

    def graded(prompts, completions, answer, **kwargs):
        seen.extend(
            (prompt[-1]["content"], completion[0]["content"], a)
            for prompt, completion, a in zip(prompts, completions, answer, strict=True)
        )
        return [float(completion[0]["content"] == right) for completion, right in zip(completions, answer, strict=True)]

    envs = textgym.TextGenVectorEnv(
        6, prompts=datasets.Dataset.from_list(rows), tokenizer=chat_tokenizer, reward_fn=trl_rewards(graded), max_new_tokens=1
    )
    envs.reset(seed=0)
    (one,) = TextTokenizer(chat_tokenizer).encode("1")
    _, reward, *_ = envs.step(np.full(6, one))
    assert len(seen) == 6
    assert {(asked == right, written) for asked, written, right in seen} == {(True, "1")}
    assert reward.tolist() == [float(asked == "1") for asked, _, _ in seen]
