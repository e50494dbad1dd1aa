"""The workaround of 2022 as a baseline: write a part, score it, append it to the prompt, write the next, score that.

Left out on purpose: any way for a part to be judged by what comes after it; that is what the workaround cannot do, and what
token rewards are for. One text of several parts stands in for the several generations, so that both can be compared at the
same number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from textgym.action_masks import hand_on_masks
from textgym.episode import Episode, Prompt, read_only
from textgym.rewards import Reward, RewardFn, resolve
from textgym.task import Task


class Sequential(Task):
    """A task whose parts are scored one after another, each as a generation of its own that sees only what is before it.

    Each part is handed to ``reward_fn`` as an episode: its prompt is the task's prompt and all parts before, its response the
    part, and nothing else exists. What it earns is paid inside its own stream, as the workaround's generations are
    optimised one by one. Prompts, endings, success, score and metrics are the task's, of the whole text.

    Args:
        task: where prompts, tokenizer and sizes come from, and what the whole text is judged by in the end.
        reward_fn: scores parts, as any reward function; its ``metadata["part"]`` in the prompt says which part it is, from 0.
            Its criteria are the text's, added up over the parts that have them.
        ends: strings; a part ends with the token that completes one of them.

    Raises:
        ValueError: ``ends`` is no list of texts, or the task replies.
    """

    def __init__(self, task: Task, reward_fn: RewardFn, ends: Sequence[str] = (".",)) -> None:
        if isinstance(ends, str) or not ends or not all(ends):
            raise ValueError(f"ends is {ends!r}; give a list of strings that are not empty")
        if getattr(task.reply, "__func__", None) is not Task.reply:
            raise ValueError(f"{type(task).__name__} replies; the parts of a text are cut here, so give a task without turns")
        self.task, self.reward_fn, self.ends = task, reward_fn, tuple(ends)
        self.tokenizer = task.tokenizer
        self.max_prompt_tokens, self.max_new_tokens = task.max_prompt_tokens, task.max_new_tokens
        self.max_response_tokens = task.max_response_tokens
        self.stop, self.length_limit = task.stop, task.length_limit
        self.ended, self.sample, self.success, self.score = task.ended, task.sample, task.success, task.score
        self.metrics, self.demonstrations = task.metrics, task.demonstrations
        hand_on_masks(task, self)

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Score every part by itself, and lay what it earns on its tokens, criterion by criterion.

        Raises:
            ValueError: a part's spans name streams; each part has its own. Or one part of a text earns something without a
                name, and another one under the name of a criterion.
        """
        paid: list[dict[str, Reward]] = [{} for _ in episodes]  # criterion -> token rewards; "" is a reward without a name
        cut = [self.parts(episode) for episode in episodes]
        for number in range(max(map(len, cut), default=0)):  # all first parts are scored before a second one is looked at
            having = [i for i, parts in enumerate(cut) if number < len(parts)]
            parts = [cut[i][number] for i in having]
            items = self.reward_fn(parts)
            for place, resolved in enumerate(resolve(items, parts)):
                part, text, item = parts[place], having[place], items[place]
                if resolved.span_streams is not None:
                    raise ValueError(
                        f"part {number} of episode {part.episode_id} has spans that name a stream; each part is a stream of "
                        "its own here: give Span(start, end, reward)"
                    )
                start = len(np.asarray(part.prompt.ids)) - len(np.asarray(episodes[text].prompt.ids))
                for name, reward in item.items() if isinstance(item, Mapping) else [("", item)]:
                    if isinstance(reward, list | tuple) and not reward:
                        paid[text].setdefault(name, [])  # no reward, which the ledger shows where no part has one
                        continue
                    if not isinstance(paid[text].get(name), np.ndarray):
                        paid[text][name] = np.zeros(len(episodes[text].ids))
                    paid[text][name][start : start + len(part.ids)] = resolve([reward], [part])[0].token_rewards
        return [_of_text(each, episode) for each, episode in zip(paid, episodes, strict=True)]

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.NDArray[np.int64]]:
        """Give each token the number of its part."""
        lengths = [[len(part.ids) for part in self.parts(episode)] for episode in episodes]
        return [np.repeat(np.arange(len(each)), each) for each in lengths]

    def parts(self, episode: Episode) -> list[Episode]:
        """Cut a text into its parts, each an episode of its own; a rest without an end, as end-of-text alone, is one too."""
        starts, begin = [0], 0
        for token, end in enumerate(episode.offsets[:-1, 1].tolist()):
            if any(stop in episode.text[begin:end] for stop in self.ends):
                starts.append(token + 1)
                begin = end
        pairs = zip(starts, [*starts[1:], len(episode.ids)], strict=True)
        return [_part(episode, number, *pair) for number, pair in enumerate(pairs)]


def _of_text(paid: dict[str, Reward], episode: Episode) -> Reward:
    """Give what the parts of a text earn as the reward of the text: criteria where parts have them."""
    unnamed = paid.pop("", [])
    if not paid:
        return unnamed
    if np.any(unnamed):
        raise ValueError(
            f"the parts of episode {episode.episode_id} earn {np.sum(unnamed)} without a name and something under the criteria "
            f"{', '.join(paid)}; give all of it a name: {{name: reward}}"
        )
    return paid


def _part(episode: Episode, number: int, start: int, end: int) -> Episode:
    """Make an episode of tokens start to end - 1, whose prompt is all that was there before them."""
    begin = int(episode.offsets[start, 0])
    stop = int(episode.offsets[end, 0]) if end < len(episode.ids) else len(episode.text)
    prompt = episode.prompt
    before = np.concatenate([np.asarray(prompt.ids), episode.ids[:start]])
    return Episode(
        prompt=Prompt(prompt.text + episode.text[:begin], before, {**prompt.metadata, "part": number}, prompt.group_id),
        ids=read_only(episode.ids[start:end]),
        text=episode.text[begin:stop],
        offsets=read_only(episode.offsets[start:end] - begin),
        agent_mask=episode.agent_mask[start:end],
        turns=episode.turns[start:end],
        ended_by=episode.ended_by if end == len(episode.ids) else "stop",
        episode_id=episode.episode_id,
    )
