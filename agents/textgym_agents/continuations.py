"""Continuations for ``textgym.credit.MonteCarlo``: let a policy go on from unfinished texts, by the task's own rules.

Left out on purpose: learning from them. They are written to be scored, and forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from textgym import Episode
from textgym.rules import RUNNING, Rules
from textgym.text import Text
from textgym_agents.rollout import Policy


class PolicyContinuations:
    """Finishes texts with a policy: ends, limits, replies and action masks are those of the task.

    Args:
        policy: one of its own, because it is called while the learner's holds the texts of the environment in its slots; over
            the learner's model it plays as that stands: ``CausalLMPolicy(policy.model, num_slots, seed=1)``. Where the task has
            action masks, its ``act`` takes them as ``allowed``.
        task: what the texts belong to, as the environment takes it.
        num_slots: texts written side by side.
        max_episode_steps: the environment's length limit of what the agent writes, where it was given one in place of the
            task's ``max_new_tokens``.
    """

    def __init__(self, policy: Policy, task: Any, num_slots: int, max_episode_steps: int | None = None) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}; it must be at least 1")
        self.policy = policy
        self.rules = Rules(task, max_episode_steps=max_episode_steps)
        self.num_slots = num_slots

    def __deepcopy__(self, memo: object) -> PolicyContinuations:
        return self  # an environment's spec copies its arguments; the policy is not one of them

    def __call__(self, episodes: Sequence[Episode], k: int) -> list[list[Episode]]:
        """Give k finished texts that begin as each of ``episodes``."""
        waiting = deque((number, episode) for number, episode in enumerate(episodes) for _ in range(k))
        out: list[list[Episode]] = [[] for _ in episodes]
        playing: dict[int, tuple[int, Text]] = {}
        self.policy.reset_slots(range(self.num_slots))  # the model may have learned since
        while waiting or playing:
            for slot in range(self.num_slots):
                if slot not in playing and waiting:
                    number, episode = waiting.popleft()
                    playing[slot] = number, self._begin(episode)
            slots = np.array(sorted(playing))
            obs = np.stack([playing[slot][1].tokens for slot in slots])
            told: dict[str, Any] = {}
            if self.rules.masks is not None:
                numbers = [playing[slot][1].mask_number for slot in slots]
                told["allowed"] = torch.from_numpy(self.rules.masks.table.rows[numbers])
            tokens = np.asarray(self.policy.act(obs, slots, **told).tokens.cpu())
            for slot, token in zip(slots.tolist(), tokens.tolist(), strict=True):
                number, text = playing[slot]
                code = text.write(token)
                if code != RUNNING:
                    out[number].append(text.episode(code))
                    del playing[slot]
                    self.policy.reset_slots([slot])
        return out

    def _begin(self, episode: Episode) -> Text:
        text = Text(self.rules, episode.prompt, episode.episode_id)
        for token in episode.ids[episode.agent_mask].tolist():
            if text.write(token) != RUNNING:
                raise ValueError(f"the text {episode.text!r} of episode {episode.episode_id} has ended; nothing can follow it")
        return text
