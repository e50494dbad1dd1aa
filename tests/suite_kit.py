"""Rows of a suite, made by hand, and a task and an assigner of a user's."""

from textgym.credit import Last
from textgym.suite.setting import Setting
from textgym.tasks.copying import Copying


class MyLast(Last):
    """An assigner of a user's own."""


class MyCopying(Copying):
    """A task of a user's own."""


class SplitCopying(Copying):
    """A task with an assigner of its own, by name."""

    assigner = "prefix_difference"


class BrokenCopying(Copying):
    """A task that cannot be rewarded."""

    def rewards(self, episodes):
        raise RuntimeError("no rewards today")


def learning_row(task, reward, seed, scores, tokens=(0, 100, 200), calls=1, agent="ppo", seconds=1.0):
    """A run whose reward calls are ``calls`` per 10 tokens."""
    setting = Setting(task, reward, agent, 64)
    curve = {
        "tokens": list(tokens),
        "episodes": [each // 10 for each in tokens],
        "reward_calls": [calls * each // 10 for each in tokens],
        "score": list(scores),
    }
    figures = {"before": {"score": scores[0]}, "final": {"score": scores[-1]}}
    return row_of(setting, seed) | {"curve": curve, **figures, "warnings": [], "seconds": seconds}


def row_of(setting, seed):
    said = {
        name: getattr(setting, name) for name in ("task", "reward", "agent", "episodes", "task_args", "agent_args", "options")
    }
    return {"key": setting.key, "seed": seed, "setting": said, "group": "g", "versions": {"python": "3"}, "error": None}


def failed_row(task="copying", seed=0, error="RuntimeError: no | rewards"):
    return row_of(Setting(task, "dense", "ppo", 64), seed) | {"error": error, "traceback": "..."}


def credit_row(probe, reward, seed, cosine):
    figures = {"cosine": cosine, "sign_accuracy": 1.0, "rank_correlation": None, "variance": 2.0, "reward_calls": 3}
    return row_of(Setting(probe, reward, "exact", 1), seed) | {"credit": figures, "warnings": [], "seconds": 0.1}
