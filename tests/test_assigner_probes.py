"""The checks of assigners: each kind of fault is caught by name; that all shipped ones pass is in ``test_credit``."""

import numpy as np
import pytest

from textgym.checks import CheckError, check_assigner
from textgym.credit import Last, LeaveOneOut, Shapley, Uniform


def test_an_assigner_that_scores_parts_is_given_a_score_and_its_own_is_left():
    report = check_assigner(Shapley())
    assert (report.faults, report.episodes > 32) == ([], True)
    own = LeaveOneOut(lambda texts: [0.0] * len(texts))
    check_assigner(own)
    assert own.reward_calls > 0
    asked = []
    check_assigner(LeaveOneOut(), texts=["abc"], score=lambda texts: [asked.append(t.text) or 0.5 for t in texts])
    assert {"bc", "ac", "ab"} <= {*asked}


class Half(Last):
    def __call__(self, scores, episodes):
        return super().__call__([score / 2 for score in scores], episodes)


class Hidden(Uniform):
    causal = True


class Undeclared:
    def __call__(self, scores, episodes):
        return Last()(scores, episodes)


class Wide(Last):
    def __call__(self, scores, episodes):
        return [np.append(paid, 0.0) for paid in super().__call__(scores, episodes)]


class Padded(Last):
    """One table for the batch, as wide as its longest text."""

    def __call__(self, scores, episodes):
        table = np.zeros((len(episodes), max((len(e.ids) for e in episodes), default=0)))
        for row, episode, score in zip(table, episodes, scores, strict=True):
            row[len(episode.ids) - 1] = score
        return list(table)


class OneTooFew(Last):
    def __call__(self, scores, episodes):
        return super().__call__(scores[1:], episodes[1:])


class Everyone(Uniform):
    """Pays what the environment wrote too."""

    def __call__(self, scores, episodes):
        return [np.full(len(e.ids), score / len(e.ids)) for score, e in zip(scores, episodes, strict=True)]


class ByScore(Uniform):
    """Divides by the score, which may be 0."""

    def __call__(self, scores, episodes):
        with np.errstate(invalid="ignore"):
            ones = np.array(scores) / np.array(scores)
        return [one * paid for one, paid in zip(ones, super().__call__(scores, episodes), strict=True)]


class ByLength(Uniform):
    """No character, no weight: empty texts."""

    def __call__(self, scores, episodes):
        out = []
        for score, e in zip(scores, episodes, strict=True):
            weights = np.where(e.agent_mask, e.offsets[:, 1] - e.offsets[:, 0], 0)
            out.append(weights * (score / int(weights.sum())))
        return out


class InPlace(Last):
    def __call__(self, scores, episodes):
        paid = super().__call__(scores, episodes)
        scores[:] = [0.0] * len(scores)
        return paid


class NotForNone(Last):
    def __call__(self, scores, episodes):
        largest = max(map(abs, scores))
        return [paid * largest / largest if largest else paid for paid in super().__call__(scores, episodes)]


class Ranked(Uniform):
    """Discounts from the end of the longest text."""

    def __call__(self, scores, episodes):
        longest = max((len(e.ids) for e in episodes), default=0)
        out = []
        for score, e in zip(scores, episodes, strict=True):
            weights = np.where(e.agent_mask, 1.0 + longest - len(e.ids) + np.arange(len(e.ids)), 0.0)
            out.append(score * weights / weights.sum())
        return out


class FirstOfAll(Uniform):
    """Pays the batch's first text otherwise than the others."""

    def __call__(self, scores, episodes):
        return [*Last()(scores[:1], episodes[:1]), *super().__call__(scores[1:], episodes[1:])]


class Drawn(Uniform):
    def __init__(self):
        object.__setattr__(self, "rng", np.random.default_rng(0))

    def __call__(self, scores, episodes):
        out = []
        for score, e in zip(scores, episodes, strict=True):
            weights = np.where(e.agent_mask, self.rng.random(len(e.ids)) + 0.1, 0.0)
            out.append(score * weights / weights.sum())
        return out


@pytest.mark.parametrize(
    ("assigner", "name", "says"),
    [
        (Half(), "conservation", "set conserves = False"),
        (Hidden(), "causality", "set causal = False"),
        (Undeclared(), "declarations", "assigner.causal is None"),
        (Wide(), "rewards", "give one number per response token"),
        (Padded(), "rewards", "give one number per response token"),
        (OneTooFew(), "rewards", "arrays for"),
        (Everyone(), "rewards", "the environment wrote the tokens"),
        (ByScore(), "rewards", "give finite numbers"),
        (ByLength(), "rewards", "ZeroDivisionError"),
        (InPlace(), "rewards", "changed the scores"),
        (NotForNone(), "rewards", "empty"),
        (Ranked(), "batches", "padding is nobody's"),
        (FirstOfAll(), "batches", "batches are whatever ended in one step"),
        (Drawn(), "repeatable", "by a seed and the text's tokens"),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else value,
)
def test_an_assigner_that_is_not_what_it_declares_is_caught_by_name(assigner, name, says):
    with pytest.raises(CheckError) as error:
        check_assigner(assigner, texts=["abc"])
    assert error.value.names[0] == name
    assert says in str(error.value)
    assert type(assigner).__name__ in str(error.value)
