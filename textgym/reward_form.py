"""The same task with its reward in another form: what an ablation compares.

Left out on purpose: forms that change what an episode earns in total. The sum stays; only where it is paid differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.action_masks import hand_on_masks
from textgym.episode import Episode
from textgym.rewards import Reward, resolve
from textgym.task import Task


class RewardForm(Task):
    """The same task with its reward in another form, for comparisons.

    Args:
        task: the task to wrap.
        form: "tokens" keeps the rewards, "scalar" pays only their sum, on the last agent token; a sum is the whole text's, so
            there is only one stream then.
        streams: False puts every token into stream 0.
        assigner: splits the sum over the tokens, in the task's streams, in place of the task's own assigner.
    """

    def __init__(
        self, task: Task, form: Literal["tokens", "scalar"] = "tokens", streams: bool = True, assigner: Any = None
    ) -> None:
        if form not in ("tokens", "scalar"):
            raise ValueError(f"form is {form!r}; allowed are 'tokens' and 'scalar'")
        if form == "scalar" and assigner is not None:
            raise ValueError(f"form is 'scalar', which pays the last token, and assigner is {assigner!r}; give one of the two")
        self.task = task
        self.form = form
        self.keep_streams = streams and form == "tokens"
        self.tokenizer = task.tokenizer
        self.max_prompt_tokens = task.max_prompt_tokens
        self.max_new_tokens = task.max_new_tokens
        self.max_response_tokens, self.max_turn_tokens = task.max_response_tokens, task.max_turn_tokens
        self.stop, self.turn_stop, self.reply = task.stop, task.turn_stop, task.reply
        self.assigner = None if form == "scalar" else task.assigner if assigner is None else assigner
        self.length_limit = task.length_limit
        self.weights = task.weights if self.keep_streams else {}  # a rewritten reward is weighted already
        self.causal_streams = task.causal_streams or not self.keep_streams
        self.ended = task.ended
        self.sample, self.success, self.score = task.sample, task.success, task.score
        self.metrics, self.demonstrations = task.metrics, task.demonstrations
        hand_on_masks(task, self)

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give the task's rewards in the chosen form; the sum of each episode stays."""
        rewards = self.task.rewards(episodes)
        if self.keep_streams:
            return rewards
        resolved = resolve(rewards, episodes, self.task.weights)
        if self.form == "scalar":
            return [float(item.token_rewards.sum(dtype=np.float64)) for item in resolved]
        return [item.token_rewards for item in resolved]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.ArrayLike] | None:
        """Give the task's streams, or one stream."""
        return self.task.streams(episodes) if self.keep_streams else None
