"""One random generator per slot, shared seeds within a group: as ``SyncVectorEnv`` seeds, slot i with seed + i.

Left out on purpose: any use of a generator. ``Rules.prompt`` draws from it, once per episode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium.utils.seeding import np_random


class SlotGenerators:
    """Generators of N slots; slots of one group of ``group_size`` draw the same prompts."""

    def __init__(self, num_envs: int, group_size: int) -> None:
        self.num_envs = num_envs
        self.group_size = group_size
        self.seeds = [-1] * num_envs
        self._generators: list[np.random.Generator | None] = [None] * num_envs

    def __getitem__(self, slot: int) -> np.random.Generator:
        """Give the slot's generator; a slot that was never seeded draws a seed, together with its group."""
        generator = self._generators[slot]
        if generator is None:
            first = slot - slot % self.group_size
            _, seed = np_random(None)
            for member in range(first, first + self.group_size):
                if self._generators[member] is None:
                    self._generators[member], self.seeds[member] = np_random(seed)
            generator = self._generators[slot]
            assert generator is not None
        return generator

    def seed(self, slots: Sequence[int], seed: int | Sequence[int | None] | None) -> None:
        """Seed ``slots``: slot i with ``seed + i // group_size``, or with ``seed[i]``; None leaves generators as they are.

        Raises:
            ValueError: a list of seeds has not one per slot, or differs within a group.
        """
        seeds = self._of_slots(seed)
        for slot in slots:
            if seeds[slot] is not None:
                self._generators[slot], self.seeds[slot] = np_random(seeds[slot])

    def _of_slots(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + slot // self.group_size for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed has {len(seed)} entries for {self.num_envs} slots; give one number or one per slot")
        groups = [set(seed[first : first + self.group_size]) for first in range(0, self.num_envs, self.group_size)]
        if any(len(group) > 1 for group in groups):
            raise ValueError(f"seed is {list(seed)}; slots of one group (group_size {self.group_size}) need the same seed")
        return list(seed)
