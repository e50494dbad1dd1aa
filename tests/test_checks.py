"""The checks: what is right passes, and each kind of fault is caught by name."""

import random

import numpy as np
import pytest
import torch

import textgym
from textgym import PromptTask, Span, Task
from textgym.checks import CheckError, check_rewards, check_task, report_task
from textgym.parts import pay, sentences
from textgym.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_shipped_task_passes(name):
    report = check_task(name)
    assert report.episodes >= 32
    assert report.ledger.asked - sum(report.ledger.accounts.values()) == pytest.approx(report.paid, abs=1e-5)


class Good(Task):
    """A task without faults; each fault below changes one thing."""

    max_prompt_tokens = 4
    max_new_tokens = 8

    def __init__(self):
        self.tokenizer = textgym.symbol_tokenizer(list("abc."))
        self.calls = 0

    def sample(self, rng):
        return textgym.Prompt("ab"[: int(rng.integers(1, 3))])

    def rewards(self, episodes):
        return [[Span(0, len(e.text), float(e.text.count("a")))] if e.text else 0.0 for e in episodes]

    def success(self, episode):
        return "a" in episode.text

    def demonstrations(self, rng, count):
        return [(self.sample(rng), "abc")] * count


def test_a_task_without_faults_passes_and_the_ledger_is_shown():
    report = check_task(Good, episodes=20)
    assert (len(report.faults), report.episodes) == (0, 36)
    weighted = report_task(PromptTask(["a"], Good().tokenizer, lambda e: [{"x": 2.0}] * len(e), weights={"x": 0.25}))
    assert weighted.faults == []
    assert (weighted.ledger.asked, dict(weighted.ledger.accounts), weighted.paid) == (2.0, {"weight/x": 1.5}, 0.5)


class NoTokenizer(Good):
    def __init__(self):
        pass


class LongPrompt(Good):
    def sample(self, rng):
        return textgym.Prompt("abcabc")


class OwnGenerator(Good):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def sample(self, rng):
        return textgym.Prompt("abc"[int(self.rng.integers(3))])


class Global(Good):
    def demonstrations(self, rng, count):
        return [(textgym.Prompt("a"), random.choice(["a", "b"]))] * count


class GlobalNumpy(Good):
    def rewards(self, episodes):
        np.random.random()  # noqa: NPY002
        return super().rewards(episodes)


class Reseeding(Good):
    def rewards(self, episodes):
        np.random.seed(0)  # noqa: NPY002
        return super().rewards(episodes)


class GlobalSuccess(Good):
    def success(self, episode):
        return random.random() < 2


class GlobalTorch(Good):
    def streams(self, episodes):
        torch.rand(1)
        return [np.zeros(len(e.ids), int) for e in episodes]


class CountingMetadata(Good):
    def sample(self, rng):
        self.calls += 1
        return textgym.Prompt("a", metadata={"number": self.calls})


class Scribbling(Good):
    def sample(self, rng):
        return textgym.Prompt("a", metadata={"seen": []})

    def rewards(self, episodes):
        for episode in episodes:
            episode.prompt.metadata["seen"].append(1)
        return super().rewards(episodes)


class MoodySuccess(Good):
    def success(self, episode):
        self.calls += 1
        return self.calls % 2 == 0


class OwnDemonstrations(Good):
    def demonstrations(self, rng, count):
        self.calls += 1
        return [(textgym.Prompt("a"), "abc"[: 1 + self.calls % 3])] * count


class Sentences(Good):
    """A sentence's stream begins at its first letter; the space before it is nobody's, until it is followed."""

    def __init__(self):
        super().__init__()
        self.tokenizer = textgym.symbol_tokenizer(list("ab. "))

    def rewards(self, episodes):
        return [pay(sentences(e), 1.0, streams=True) for e in episodes]

    def demonstrations(self, rng, count):
        return [(textgym.Prompt("a"), "a. b b.")] * count


class WrongLength(Good):
    def rewards(self, episodes):
        return [[0.0] * (len(e.ids) + 1) for e in episodes]


class Empty(Good):
    def rewards(self, episodes):
        return [float(e.text[0] == "a") for e in episodes]  # IndexError on an empty text


class Moody(Good):
    def rewards(self, episodes):
        self.calls += 1
        return [float(self.calls)] * len(episodes)


class Ranked(Good):
    def rewards(self, episodes):
        longest = max(len(e.text) for e in episodes)
        return [float(len(e.text) == longest) for e in episodes]


class Hindsight(Good):
    def streams(self, episodes):
        return [np.full(len(e.ids), int("." in e.text)) for e in episodes]


class BothStreams(Good):
    def rewards(self, episodes):
        return [[Span(0, len(e.text), 1.0, stream=1)] if e.text else 0.0 for e in episodes]

    def streams(self, episodes):
        return [np.zeros(len(e.ids), int) for e in episodes]


class MoodyEnd(Good):
    def ended(self, prompt, ids):
        self.calls += 1
        return self.calls % 7 == 0


class MoodyReply(Good):
    max_response_tokens = 12

    def reply(self, episode):
        self.calls += 1
        return "c" if self.calls % 3 else None

    def rewards(self, episodes):
        return [0.0] * len(episodes)

    def demonstrations(self, rng, count):
        return []


class WrongReply(Good):
    def reply(self, episode):
        return 3


class LongDemonstration(Good):
    def demonstrations(self, rng, count):
        return [(textgym.Prompt("a"), "abcabcabc")] * count


class StoppedDemonstration(Good):
    stop = (".",)

    def demonstrations(self, rng, count):
        return [(textgym.Prompt("a"), "a.b")] * count  # the stop string ends the text before the b


class ForeignDemonstration(Good):
    def demonstrations(self, rng, count):
        return [(textgym.Prompt("a"), "xyz")] * count


class Verdict(Good):
    def success(self, episode):
        return 0.5


class Score(Good):
    def score(self, episodes):
        return 3.0


class Metrics(Good):
    def metrics(self, episodes):
        return {"a": "b"}


class Counting(Good):
    """Pays by how many texts it has seen: the two doors cannot agree."""

    def rewards(self, episodes):
        self.calls += len(episodes)
        return [float(self.calls)] * len(episodes)


class Uncopyable(Good):
    def __deepcopy__(self, memo):
        raise RuntimeError("holds a lock")


@pytest.mark.parametrize(
    ("task", "name", "says"),
    [
        (NoTokenizer, "construction", "tokenizer"),
        (LongPrompt, "construction", "max_prompt_tokens is 4"),
        (OwnGenerator, "repeatable prompts", "from the generator"),
        (Global, "global random state", "global random state"),
        (GlobalNumpy, "global random state", "global random state"),
        (Reseeding, "global random state", "seeds global random state"),
        (GlobalSuccess, "global random state", "global random state"),
        (GlobalTorch, "global random state", "global random state"),
        (CountingMetadata, "repeatable prompts", "draw text and metadata"),
        (Scribbling, "prompts left alone", "prompts are shared"),
        (MoodySuccess, "verdicts", "function of the text"),
        (OwnDemonstrations, "demonstrations", "same generator state"),
        (WrongLength, "rewards", "its response has"),
        (Empty, "rewards", "IndexError"),
        (Moody, "repeatable rewards", "otherwise the second time"),
        (Ranked, "rewards alone as in a batch", "depends on the texts beside it"),
        (Hindsight, "causal streams", "causal_streams = False"),
        (BothStreams, "rewards", "give one of the two"),
        (MoodyEnd, "repeatable endings", "functions of the text"),
        (MoodyReply, "repeatable endings", "functions of the text"),
        (WrongReply, "episodes", "task.reply gave 3"),
        (LongDemonstration, "demonstrations", "ended by length"),
        (StoppedDemonstration, "demonstrations", "was played as 'a.'"),
        (ForeignDemonstration, "demonstrations", "cannot encode 'xyz'"),
        (Verdict, "verdicts", "give a bool"),
        (Score, "verdicts", r"in [0, 1]"),
        (Metrics, "verdicts", "names and numbers"),
        (Counting, "doors", "the single environment released"),
        (Uncopyable, "copies", "holds a lock"),
    ],
)
def test_a_broken_task_of_each_kind_is_caught_by_name(task, name, says):
    with pytest.raises(CheckError) as error:
        check_task(task)
    assert name in error.value.names
    assert f"{name}: " in str(error.value)
    assert says in str(error.value)


def test_a_reward_function_is_checked_on_texts_and_random_samples():
    tokenizer = Good().tokenizer

    def first(episodes):
        return [[Span(0, 1, 1.0)] if e.text else [] for e in episodes]

    report = check_rewards(first, tokenizer, texts=["abc", "c"])
    assert (report.episodes, report.faults) == (34, [])

    def only_of_a(episodes):
        return [1.0 if e.text.index("a") == 0 else 0.0 for e in episodes]

    with pytest.raises(CheckError, match="only_of_a fails") as error:
        check_rewards(only_of_a, tokenizer, texts=["abc"])
    assert "rewards" in error.value.names


def test_right_tasks_of_odd_shapes_pass():
    class OneToken(Good):
        max_new_tokens = 1

        def demonstrations(self, rng, count):
            return [(textgym.Prompt("a"), "b")] * count

    class Pair(Good):
        def ended(self, prompt, ids):
            return len(ids) == 2

        def demonstrations(self, rng, count):
            return [(textgym.Prompt("a"), "ab")] * count

    class Talk(Good):
        max_response_tokens = 16

        def reply(self, episode):
            return "c" if episode.turns.max() < 2 else None

        def rewards(self, episodes):
            return [1.0] * len(episodes)

        def demonstrations(self, rng, count):
            return [(textgym.Prompt("a"), ["a", "c", "b", "c", "ab"])] * count

    for task in (OneToken, Pair, Talk):
        check_task(task)


def test_given_texts_are_judged_whole_or_the_check_says_that_they_are_not():
    seen = []

    def long(episodes):
        seen.extend(len(episode.text) for episode in episodes)
        return [0.0] * len(episodes)

    check_rewards(long, Good().tokenizer, texts=["a" * 100])
    assert 100 in seen
    with pytest.raises(CheckError, match="shorten it or raise max_new_tokens"):
        check_rewards(long, Good().tokenizer, texts=["a" * 100], max_new_tokens=50)


def test_streams_of_sentences_are_not_causal_and_the_check_sees_it():
    with pytest.raises(CheckError, match="causal_streams = False"):
        check_task(Sentences)
