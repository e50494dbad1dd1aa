"""A task in each form of reward that the suite compares.

Left out on purpose: forms of one task alone; every form but "sequential" can be asked of every task.
"""

from __future__ import annotations

from typing import Any

from textgym.assign import resolve_assigner
from textgym.reward_form import RewardForm
from textgym.suite.workaround import WORKAROUNDS
from textgym.task import Task, resolve_task
from textgym.tasks.sequential import Sequential

REWARD_FORMS = {
    "scalar": "only the sum of a text's rewards, on its last token",
    "dense": "the task's token rewards, all in one stream",
    "streams": "the task as it is: token rewards in its streams",
    "sequential": "the workaround of 2022: each part scored before the next one is written",
}
"""Name -> what is paid. Any other name is an assigner's, which splits the sum, in one stream."""


def in_form(task: Any, reward: Any, /, **kwargs: Any) -> Task:
    """Build a task whose reward has a form.

    Args:
        task: as ``resolve_task`` takes it.
        reward: a name of ``REWARD_FORMS``, or an assigner: short name, "module:Name" or object.
        kwargs: arguments of the task's constructor, which may have a ``reward`` of its own.

    Raises:
        ValueError: nothing has that name, or the task has no such form.
    """
    built = resolve_task(task, **kwargs)
    if reward == "streams":
        return built
    if reward == "scalar":
        return RewardForm(built, "scalar")
    if reward == "dense":
        return RewardForm(built, streams=False)
    if reward != "sequential":
        try:
            assigner = resolve_assigner(reward)
        except ValueError as error:
            raise ValueError(f"{error}; and there are the reward forms {', '.join(REWARD_FORMS)}") from None
        return RewardForm(built, streams=False, assigner=assigner)
    for kind, (judge, ends) in WORKAROUNDS.items():
        if isinstance(built, kind):
            return Sequential(built, judge(built), ends)
    known = ", ".join(kind.__name__ for kind in WORKAROUNDS)
    raise ValueError(
        f"{type(built).__name__} has no sequential form; {known} have one. Wrap a task of your own in "
        'textgym.tasks.sequential.Sequential, and name that "module:Name"'
    )
