"""Sentiment: differences of prefixes by hand, sums against VADER asked directly, and a model's own tokenizer."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

import textgym
from textgym.tasks.sentiment import PROMPTS, Sentiment

VADER = SentimentIntensityAnalyzer()
TASKS = [(sign, Sentiment(target=target, reward=reward)) for sign, target in ((1, "positive"), (-1, "negative"))
         for reward in ("word", "sentence", "scalar")]  # fmt: skip


def s(text):
    return VADER.polarity_scores(text)["compound"]


def play(task, prompt, text, eos=True):
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": prompt})
    tokenizer = env.rules.tokenizer
    for action in [*tokenizer.encode(text).tolist(), *([tokenizer.eos_token_id] if eos else [])]:
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    return info["text"], textgym.release(info)


def test_each_word_earns_what_it_did_to_the_sentiment_so_far():
    text, release = play(Sentiment(), "the film was", " not good but great.")
    assert text == " not good but great."
    expected = [s("the film was not"), s("the film was not good"), s("the film was not good but")]
    expected += [s("the film was not good but great."), 0.0]  # word and full stop are one word; its last token is the full stop
    differences = np.diff([s("the film was"), *expected[:4]])
    assert release.token_rewards == pytest.approx([*differences[:3], 0.0, differences[3], 0.0], abs=1e-6)
    assert differences[1] < 0 < differences[2]  # "but" weakens the "not good" before it


def test_each_sentence_earns_what_it_did():
    _, release = play(Sentiment(reward="sentence"), "the film was", " great. it was sad")
    first = s("the film was great.") - s("the film was")
    second = s("the film was great. it was sad") - s("the film was great.")
    assert release.token_rewards == pytest.approx([0, first, 0, 0, second, 0], abs=1e-6)
    assert first > 0 > second


@given(words=st.lists(st.sampled_from([" good", " not", " awful", " very", " but", ".", " film"]), max_size=11))
def test_all_three_forms_add_up_to_the_same(words):
    text = "".join(words)
    for sign, task in TASKS:
        _, release = play(task, PROMPTS[0], text)
        total = sign * (s(PROMPTS[0] + text) - s(PROMPTS[0]))
        assert release.token_rewards.sum() == pytest.approx(total, abs=1e-5), (task.reward, text)


def test_a_models_own_tokenizer_is_paid_on_its_sampled_tokens(byte_bpe):
    tokenizer = textgym.TextTokenizer(byte_bpe, eos_token_id=0)
    task = Sentiment(["he said it was"], tokenizer=tokenizer, max_new_tokens=40)
    text, release = play(task, "he said it was", " good, not bad")
    paid = {text[: task.tokenizer.offsets(task.tokenizer.encode(text))[1][i, 1]]: r
            for i, r in enumerate(release.token_rewards.tolist()[:-1]) if r}  # fmt: skip
    assert paid == {
        " good,": pytest.approx(s("he said it was good,"), abs=1e-6),
        " good, not bad": pytest.approx(s("he said it was good, not bad") - s("he said it was good,"), abs=1e-6),
    }
    assert task.demonstrations(np.random.default_rng(0), 5) == []
    textgym.checks.check_task(task)


def test_score_and_success_are_of_the_whole_text():
    task = Sentiment(["this film is wonderful and"], tokenizer=None)
    envs = textgym.TextGenVectorEnv(1, task, autoreset_mode="Disabled", keep_episodes=True)
    envs.reset()
    envs.step(np.array([1]))
    episodes = [episode for episode, _ in envs.take_episodes()]
    whole = s("this film is wonderful and")
    assert task.score(episodes) == pytest.approx((1 + whole) / 2)
    assert task.metrics(episodes) == {"sentiment": pytest.approx(whole)}
    assert task.success(episodes[0])
    assert not Sentiment(target="negative").success(episodes[0])


def test_stop_strings_end_a_response_and_its_demonstrations():
    task = Sentiment(stop=["."])
    text, _ = play(task, "the film was", " good.", eos=False)
    assert text == " good."
    assert all(text.index(".") == len(text) - 1 for _, text in task.demonstrations(np.random.default_rng(0), 20))
    assert Sentiment(stop=[" good", " bad", "er", "a"]).demonstrations(np.random.default_rng(0), 20) == []
    textgym.checks.check_task(task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "neutral"}, "'positive', 'negative'"),
        ({"reward": "token"}, "'word', 'sentence', 'scalar'"),
        ({"prompts": "the film"}, "give a list"),
        ({"prompts": ["der Film"]}, "cannot encode"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sentiment(**arguments)


def test_without_vader_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ValueError, match=r"textgym\[sentiment\]"):
        Sentiment()


def test_the_id():
    assert gym.make("textgym/Sentiment-v0", reward="sentence").unwrapped.rules.task.reward == "sentence"
