"""One reward function made of several named ones: criteria.

Left out on purpose: weights, which are the task's, and adding up, which is ``resolve``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textgym.episode import Episode
from textgym.parts import listed
from textgym.rewards import Reward, RewardFn


@dataclass(frozen=True)
class _Combined:
    """A reward function made of named ones; a class and no closure, so that it can be pickled."""

    criteria: tuple[tuple[str, RewardFn], ...]

    def __call__(self, episodes: Sequence[Episode]) -> list[Reward]:
        """Reward each episode with a Mapping name -> the item of that criterion."""
        columns = {}
        for name, function in self.criteria:
            items = listed(function(episodes), f"what criterion {name!r} returned", "return one reward per episode, as a list")
            if len(items) != len(episodes):
                raise ValueError(
                    f"criterion {name!r} returned {len(items)} rewards for {len(episodes)} episodes; return one per episode, "
                    "in their order"
                )
            columns[name] = items
        return [{name: items[i] for name, items in columns.items()} for i in range(len(episodes))]


def combine(criteria: Mapping[str, RewardFn]) -> RewardFn:
    """Make one reward function of several named ones, each called once per batch.

    The weights are the task's: ``weights={name: w}`` of ``PromptTask``, or a task's attribute; names not listed weigh 1.
    The result can be pickled where the functions can.

    Args:
        criteria: name -> reward function; a function may return whatever ``resolve`` takes but Mappings.

    Returns:
        A reward function whose item is a Mapping name -> that function's item. It raises ValueError, naming the criterion,
        where a function does not return one item per episode.

    Raises:
        ValueError: there is no criterion, a name is no text or empty, or a function cannot be called.
    """
    if not isinstance(criteria, Mapping) or len(criteria) == 0:
        raise ValueError(f"criteria is {criteria!r}; give a dict with at least one name and reward function")
    for name, function in criteria.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"criteria has the name {name!r}; names are strings of at least one character")
        if not callable(function):
            raise ValueError(f"criterion {name!r} is {function!r}; give a function of a list of episodes")
    return _Combined(tuple(criteria.items()))
