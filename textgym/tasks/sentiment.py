"""Sentiment: go on with a text so that it becomes positive; each word, or sentence, earns what it did to the sentiment so far.

Left out on purpose: anything that keeps the text English. The reward wants praise and nothing else; a penalty on the
distance from the model before training (``kl_coef``) is what keeps a language model a language model.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from textgym.episode import Episode, Prompt
from textgym.parts import Part, matches, pay, sentences
from textgym.prompts import encode_prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

PROMPTS = ("the film was", "this story is", "we saw it and", "I think that the actors were")
"""What the default tokenizer can write, and what is asked where nothing else is given."""
_GOOD, _BAD = ("good", "great", "wonderful", "happy", "fine"), ("bad", "awful", "boring", "sad", "terrible")
_PLAIN = ("film", "story", "actors", "plot", "long", "short", "old", "new")
_JOINS = ("and", "but", "not", "very", "was", "is", "were", "the", "this", "it", "saw", "think", "that")
_FIRST = ("the", "this", "we", "I")
_WORD = re.compile(r"\S+")
_POSITIVE = 0.05  # of the compound score: from where VADER's authors call a text positive


class Sentiment(Task):
    """Make a text positive (or negative), judged by the lexicon VADER; every word earns what it changed.

    Description:
        Prompt and response together are judged by VADER (Hutto and Gilbert, 2014), a lexicon of 7,500 English words with rules
        for negation, emphasis and contrast. Meant for a language model of one's own: give its tokenizer, and prompts. The
        default tokenizer knows some 40 words, so that the task can be played without a model. Needs
        ``pip install 'textgym[sentiment]'``.

    Prompt:
        Uniformly one of ``prompts``.

    Action space:
        One token of the tokenizer.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        Let s(text) be VADER's compound score, in [-1, 1], with the sign turned where ``target`` is "negative". A response earns
        s(prompt + response) - s(prompt) in total. ``reward="scalar"`` pays it on the last token. ``reward="word"`` pays the
        word that ends at character e the difference s(prompt + response[:e]) - s(prompt + response up to the word before), on
        its last token; ``reward="sentence"`` does the same with sentences (``parts.sentences``). Both add up to the scalar
        reward; a "but" pays for what it takes from the words before it. The tokens are those that were sampled; nothing is
        encoded again. One stream: what a word is worth depends on those before it ("not good").

    Episode end:
        End-of-text, a string of ``stop``, or ``max_new_tokens``.

    Score:
        Mean of (1 + s(prompt + response)) / 2. Success: s is at least .05, from where VADER's authors call a text positive.

    Arguments:
        prompts: texts to go on with; default: four that the default tokenizer can write.
        target: "positive" or "negative".
        reward: "word", "sentence" or "scalar".
        max_new_tokens: length limit.
        stop: strings that end the response.
        tokenizer: the model's; default: the built-in one.

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        prompts: Sequence[str] = PROMPTS,
        target: Literal["positive", "negative"] = "positive",
        reward: Literal["word", "sentence", "scalar"] = "word",
        max_new_tokens: int = 12,
        stop: Sequence[str] = (),
        tokenizer: Any = None,
    ) -> None:
        for name, value, allowed in (
            ("target", target, ("positive", "negative")),
            ("reward", reward, ("word", "sentence", "scalar")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts is {prompts!r}; give a list with at least one text")
        self._analyser = _analyser()
        self._sign = 1.0 if target == "positive" else -1.0
        self.target, self.reward = target, reward
        self.max_new_tokens, self.stop = max_new_tokens, tuple(stop)
        self._own_words = tokenizer is None
        words = [f" {word}" for word in (*_GOOD, *_BAD, *_PLAIN, *_JOINS)]
        self.tokenizer = symbol_tokenizer([*words, *_FIRST, "."]) if tokenizer is None else TextTokenizer(tokenizer)
        self.prompts = [encode_prompt(prompt, self.tokenizer) for prompt in prompts]
        self.max_prompt_tokens = max(len(np.asarray(prompt.ids)) for prompt in self.prompts)

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw one of the prompts."""
        return self.prompts[int(rng.integers(len(self.prompts)))]

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give spans over words or sentences, or their sum; see the datasheet."""
        if self.reward == "scalar":
            return [self.sentiment(e.prompt.text + e.text) - self.sentiment(e.prompt.text) for e in episodes]
        return [self._spans(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether VADER's authors would call the text positive (negative)."""
        return self.sentiment(episode.prompt.text + episode.text) >= _POSITIVE

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean of (1 + s) / 2."""
        judged = [self.sentiment(episode.prompt.text + episode.text) for episode in episodes]
        return float(np.mean([(1 + s) / 2 for s in judged])) if judged else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Mean sentiment of the whole texts, in [-1, 1]."""
        judged = [self.sentiment(episode.prompt.text + episode.text) for episode in episodes]
        return {"sentiment": float(np.mean(judged)) if judged else 0.0}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw random judgements, good and bad alike; none for a user's own tokenizer."""
        if not self._own_words:
            return []
        out = []
        for prompt in (self.sample(rng) for _ in range(count)):
            first, second = (_draw(rng, (*_GOOD, *_BAD)) for _ in range(2))
            emphasis = _draw(rng, ("", " very", " not"))
            out.append((prompt, f"{emphasis} {first} {_draw(rng, ('and', 'but'))} {second}."))
        fits = [pair for pair in out if len(self.tokenizer.encode(pair[1])) < self.max_new_tokens]
        return [pair for pair in fits if not any(stop in pair[1][:-1] for stop in self.stop)]

    def sentiment(self, text: str) -> float:
        """Give VADER's compound score, in [-1, 1], its sign turned for a negative target."""
        return self._sign * float(self._analyser.polarity_scores(text)["compound"])

    def _spans(self, episode: Episode) -> Reward:
        parts: list[Part] = matches(episode, _WORD) if self.reward == "word" else sentences(episode)
        before = self.sentiment(episode.prompt.text)
        earned = []
        for part in parts:
            so_far = self.sentiment(episode.prompt.text + episode.text[: part.end])
            earned.append(so_far - before)
            before = so_far
        return pay(parts, earned)


def _draw(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _analyser() -> Any:
    """Load VADER's lexicon: here, as only this task needs it."""
    try:
        return importlib.import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    except ModuleNotFoundError as error:
        raise ValueError("this task needs vaderSentiment, which is not installed: pip install 'textgym[sentiment]'") from error
