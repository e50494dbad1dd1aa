"""What both doors of the environment share: sizes, spaces, prompts, endings, and the one scoring function.

Left out on purpose: state. ``env`` and ``vector`` keep the texts; everything here is a function of what they hand in, so
that the scalar and the vector door cannot drift apart.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from textgym.action_masks import ActionMasks
from textgym.assign import assign, bind_to_task, resolve_assigner
from textgym.episode import EndedBy, Episode, Prompt, Release, read_only
from textgym.info import release_info, text_info
from textgym.prompts import check_room, encode_prompt
from textgym.rewards import Resolved, resolve
from textgym.streams import check_streams
from textgym.task import Task, resolve_task
from textgym.tokenizer import TextTokenizer

RUNNING, EOS, STOP, TASK, LENGTH, TURN_STOP, TURN_LENGTH = range(7)
ENDED_BY: tuple[EndedBy | None, ...] = (None, "eos", "stop", "task", "length", "stop", "length")
TURN_ENDS = (EOS, TURN_STOP, TURN_LENGTH)  # what ends the agent's turn, and only that, where the task replies
NO_TOKEN = -1  # right padding of observations; no token has this id, while a pad id may equal end-of-text


class Rules:
    """The rules of one task: built once per environment, from the arguments that both doors take.

    Args:
        task: environment id, short name, "module:Name", class or object; default: ``PromptTask`` where ``prompts`` is
            among ``task_kwargs``, else the number duel.
        observation: "tokens" or "dict".
        info_text: add prompt, text and ended_by to the info of an ended episode.
        assigner: in place of the task's own; see ``Task.assigner``.
        max_episode_steps: length limit of what the agent writes, in place of the task's ``max_new_tokens``.
        task_kwargs: arguments of the task's constructor.

    Raises:
        ValueError: a size or an option of the task is not allowed.
    """

    def __init__(
        self,
        task: Any = None,
        *,
        observation: Literal["tokens", "dict"] = "tokens",
        info_text: bool = False,
        max_episode_steps: int | None = None,
        assigner: Any = None,
        **task_kwargs: Any,
    ) -> None:
        if observation not in ("tokens", "dict"):
            raise ValueError(f"observation is {observation!r}; allowed are 'tokens' and 'dict'")
        self.task: Task = resolve_task(task, **task_kwargs)
        self.assigner = bind_to_task(resolve_assigner(self.task.assigner if assigner is None else assigner), self.task)
        self.tokenizer = TextTokenizer(self.task.tokenizer)
        self.max_prompt_tokens = _positive("max_prompt_tokens", self.task.max_prompt_tokens)
        limit = self.task.max_new_tokens if max_episode_steps is None else max_episode_steps
        self.max_new_tokens = _positive("max_new_tokens", limit)
        room = self.task.max_response_tokens
        self.max_response_tokens = self.max_new_tokens if room is None else _positive("max_response_tokens", room)
        limit = self.task.max_turn_tokens
        self.max_turn_tokens = None if limit is None else _positive("max_turn_tokens", limit)
        self.has_turns = getattr(self.task.reply, "__func__", None) is not Task.reply
        self.context_length = self.max_prompt_tokens + self.max_response_tokens
        self.vocab_size = self.tokenizer.vocab_size
        self.eos_token_id = self.tokenizer.eos_token_id
        self.dict_observation = observation == "dict"
        self.info_text = info_text
        self._check_options()
        self._stops = [*((stop, STOP) for stop in self.task.stop), *((stop, TURN_STOP) for stop in self.task.turn_stop)]
        self.stop_table = self.tokenizer.may_complete([stop for stop, _ in self._stops]) if self._stops else None
        """bool (V,): tokens after which the text is looked at; None where no token needs that."""
        self._asks_task = getattr(self.task.ended, "__func__", None) is not Task.ended
        if self._asks_task:
            self.stop_table = np.ones(self.vocab_size, dtype=np.bool_)
        looked_at = () if self.stop_table is None else self.stop_table.nonzero()[0].tolist()
        answered = {self.eos_token_id} if self.has_turns else set()
        self.pausing_tokens = None if self._asks_task else frozenset(looked_at) - {self.eos_token_id} | answered
        """Tokens after which a text is looked at, or answered. After others it goes on, or ends with end-of-text. None: any."""
        self.masks = ActionMasks.of(self.task, self.tokenizer, Task.mask_numbers)
        """Which tokens are allowed; None where the task allows all of them."""

    def _check_options(self) -> None:
        task = self.task
        if task.length_limit not in ("terminate", "truncate"):
            raise ValueError(f"task.length_limit is {task.length_limit!r}; allowed are 'terminate' and 'truncate'")
        if self.max_response_tokens < self.max_new_tokens:
            raise ValueError(
                f"task.max_response_tokens is {self.max_response_tokens} and max_new_tokens {self.max_new_tokens}; the room "
                "for agent and replies together must be at least the agent's"
            )
        if not self.has_turns and (task.turn_stop or task.max_turn_tokens is not None):
            raise ValueError(
                f"task.turn_stop is {task.turn_stop!r} and max_turn_tokens {task.max_turn_tokens}, but the task does not "
                "reply, so it has no turns; define task.reply(episode), or use stop and max_new_tokens"
            )
        for name, stops in (("stop", task.stop), ("turn_stop", task.turn_stop)):
            if isinstance(stops, str) or not all(isinstance(s, str) and s for s in stops):
                raise ValueError(f"task.{name} is {stops!r}; give a list of strings that are not empty")
            for piece in map(self.tokenizer.piece, self.tokenizer.special_ids):
                for stop in stops:
                    if piece in stop:
                        raise ValueError(
                            f"task.{name} has {stop!r}, but the special token {piece!r} is left out of texts, so it "
                            "would never be found; define task.ended(prompt, ids) to end by a token"
                        )
        for name, weight in task.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= sys.float_info.max:
                raise ValueError(f"task.weights[{name!r}] is {weight!r}; weights are finite numbers")

    @property
    def observation_space(self) -> gym.Space[Any]:
        """``Box(-1, V - 1, (context_length,), int64)``, or a Dict with tokens, length and action_mask."""
        tokens = gym.spaces.Box(NO_TOKEN, self.vocab_size - 1, (self.context_length,), np.int64)
        if not self.dict_observation:
            return tokens
        return gym.spaces.Dict(
            {
                "tokens": tokens,
                "length": gym.spaces.Box(0, self.context_length, (1,), np.int64),
                "action_mask": gym.spaces.Box(0, 1, (self.vocab_size,), np.int8),
            }
        )

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """``Discrete(V)``: one action is one token."""
        return gym.spaces.Discrete(self.vocab_size)

    def prompt(self, rng: np.random.Generator, options: dict[str, Any], group_id: int) -> Prompt:
        """Draw the prompt of a new episode (``rng``'s only use), or take ``options["prompt"]``; with ids, in room.

        Raises:
            ValueError: the prompt does not fit, or has ids that are not tokens.
        """
        # Drawn even if another one is asked for: the k-th prompt of a slot depends on its seed and k, nothing else.
        given = self.task.sample(rng)
        if options.get("prompt") is not None:
            given = options["prompt"]
        prompt = encode_prompt(given, self.tokenizer)
        check_room(prompt, self.max_prompt_tokens)
        return Prompt(prompt.text, read_only(np.asarray(prompt.ids)), prompt.metadata, group_id)

    def ending(self, prompt: Prompt, ids: npt.NDArray[np.int64], replies: Sequence[tuple[int, int]] = ()) -> int:
        """Look whether the last token completed a stop string (STOP, TURN_STOP) or the task's text (TASK), else RUNNING.

        Stop strings are the agent's own: only what it wrote in this turn counts, never a reply.
        """
        if self._stops:
            # The last token completed it, or an earlier look would have found it: older text need not be read again.
            last = max(len(self.tokenizer.piece(ids[-1])), len(self.tokenizer.decode(ids[-1:])) + 1)
            reach = max(len(stop) for stop, _ in self._stops) + last
            text = self.tokenizer.tail(ids, reach, start=replies[-1][1] if replies else 0)[-reach:]
            for stop, code in self._stops:
                if stop in text:
                    return code
        if self._asks_task and self.task.ended(prompt, ids):
            return TASK
        return RUNNING

    def after(self, episode: Episode, code: int) -> tuple[int, npt.NDArray[np.int64]]:
        """Say what follows the end of the agent's turn.

        Args:
            episode: the response up to the end of the turn.
            code: one of ``TURN_ENDS``.

        Returns:
            RUNNING and the reply's ids, or what ended the episode and no ids. A reply that does not fit, with a token of
            the agent's after it, ends the episode by its length before it is inserted.

        Raises:
            ValueError: the task's reply is no text; names the episode.
            Exception: what the task itself raised, with a note that names the episode.
        """
        nothing = np.zeros(0, dtype=np.int64)
        try:
            reply = self.task.reply(episode)
            if reply is None:
                return TASK if code == TURN_LENGTH else code, nothing
            ids = self.tokenizer.encode(reply) if isinstance(reply, str) else nothing
        except Exception as error:
            error.add_note(f"while replying in episode {episode.episode_id}")
            raise
        if len(ids) == 0:
            raise ValueError(
                f"task.reply gave {reply!r} in episode {episode.episode_id}; give a text of at least one token, or None to end "
                "the episode"
            )
        used_up = np.count_nonzero(episode.agent_mask) >= self.max_new_tokens
        if used_up or len(episode.ids) + len(ids) >= self.max_response_tokens:
            return LENGTH, nothing
        return RUNNING, ids

    def episode(
        self,
        prompt: Prompt,
        ids: npt.NDArray[np.int64],
        code: int,
        episode_id: int,
        replies: Sequence[tuple[int, int]] = (),
    ) -> Episode:
        """Build the episode from its ids, int64 (T,), and the ranges of tokens in them that replies inserted."""
        ids, count = read_only(ids), len(ids)
        if not replies and count <= self.max_response_tokens:
            ones, zeros = _constants(self.max_response_tokens)
            agent_mask, turns = ones[:count], zeros[:count]
        else:
            agent_mask, turns = _marks(count, replies)

        def read() -> tuple[str, npt.NDArray[np.int64]]:
            text, offsets = self.tokenizer.offsets(ids)
            return text, read_only(offsets)

        return Episode.unread(
            read,
            prompt=prompt,
            ids=ids,
            agent_mask=agent_mask,
            turns=turns,
            ended_by=ENDED_BY[code],
            episode_id=episode_id,
        )

    def demonstration(self, prompt: Prompt, response: str | Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Encode a demonstrated response as an agent would have written it; see ``Task.demonstrations``.

        End-of-text closes every message of the agent that nothing else ends: no stop string, no limit, not the task.

        Returns:
            ids int64 (T,) and agent mask bool (T,).
        """
        ids, agent_mask = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        for turn, text in enumerate([response] if isinstance(response, str) else response):
            message = self.tokenizer.encode(text)
            ids = np.append(ids, message)
            agent_mask = np.append(agent_mask, np.full(len(message), turn % 2 == 0))
            if turn % 2 == 0 and not self._closes(prompt, text, len(message), ids, int(agent_mask.sum())):
                ids, agent_mask = np.append(ids, self.eos_token_id), np.append(agent_mask, True)
        return ids, agent_mask

    def _closes(self, prompt: Prompt, text: str, count: int, ids: npt.NDArray[np.int64], written: int) -> bool:
        """Whether a message of ``count`` tokens ends its turn without end-of-text; the agent has ``written`` so many."""
        if any(stop in text for stop, _ in self._stops) or written >= self.max_new_tokens:
            return True
        if self.max_turn_tokens is not None and count >= self.max_turn_tokens:
            return True
        return self._asks_task and len(ids) > 0 and bool(self.task.ended(prompt, ids))

    def release(self, episodes: Sequence[Episode], slots: Sequence[int]) -> list[Release]:
        """Reward finished episodes: the one way from texts to token rewards.

        Raises:
            ValueError: the task returned what ``textgym.rewards`` does not allow; names the episode.
            Exception: what the task itself raised, with a note that names the episodes.
        """
        try:
            resolved = self._resolve(episodes)
            streams = self.task.streams(episodes)
            successes = [bool(self.task.success(episode)) for episode in episodes]
        except Exception as error:
            numbers = ", ".join(str(episode.episode_id) for episode in episodes[:8])
            error.add_note(f"while rewarding episodes {numbers}{', ...' if len(episodes) > 8 else ''}")
            raise
        given = None if streams is None else check_streams(streams, episodes)
        out = []
        for i, (episode, item) in enumerate(zip(episodes, resolved, strict=True)):
            if given is not None and item.span_streams is not None:
                raise ValueError(
                    f"episode {episode.episode_id} has streams from the task and from its spans; give one of the two"
                )
            partition = given[i] if given is not None else item.span_streams
            truncated = self.truncates(episode)
            out.append(
                Release(
                    episode_id=episode.episode_id,
                    slot=slots[i],
                    token_rewards=read_only(item.token_rewards),
                    streams=self._one_stream(episode) if partition is None else read_only(partition),
                    agent_mask=episode.agent_mask,
                    num_tokens=len(episode.ids),
                    terminated=not truncated,
                    truncated=truncated,
                    is_success=successes[i],
                    group_id=-1 if episode.prompt.group_id is None else episode.prompt.group_id,
                    criteria=item.criteria,
                    ledger=item.ledger,
                )
            )
        return out

    def _one_stream(self, episode: Episode) -> npt.NDArray[np.int64]:
        """Give the partition where nobody names one: stream 0."""
        ones, zeros = _constants(self.max_response_tokens)
        if episode.agent_mask.base is ones:  # no token is the environment's
            return zeros[: len(episode.ids)]
        return read_only(episode.agent_mask.astype(np.int64) - 1)

    def _resolve(self, episodes: Sequence[Episode]) -> list[Resolved]:
        resolved = resolve(self.task.rewards(episodes), episodes, self.task.weights)
        return resolved if self.assigner is None else assign(self.assigner, resolved, episodes)

    def truncates(self, episode: Episode) -> bool:
        """Whether an ended episode counts as truncated, so that agents bootstrap; otherwise it terminated."""
        return episode.ended_by == "length" and self.task.length_limit == "truncate"

    def info(self, episode: Episode, release: Release) -> dict[str, Any]:
        """Write the info of an ended episode."""
        info = release_info(release, self.max_response_tokens)
        return info | text_info(episode) if self.info_text else info


def check_options(options: dict[str, Any] | None, allowed: Sequence[str]) -> dict[str, Any]:
    """Return a copy of reset's options; an option that nobody reads is an error, not ignored."""
    options = dict(options or {})
    for name in options:
        if name not in allowed:
            raise ValueError(f"reset has no option {name!r}; allowed are {', '.join(allowed)}")
    return options


def episode_return(release: Release) -> float:
    """Sum the token rewards in float64: what the end step pays."""
    return float(np.add.reduce(release.token_rewards, dtype=np.float64))  # what .sum() does, less a layer of Python


@lru_cache
def _constants(size: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Give True and 0, (size,) each, read-only: what texts without replies share. Kept here, as a copy could be written to."""
    ones, zeros = np.ones(size, dtype=np.bool_), np.zeros(size, dtype=np.int64)
    ones.setflags(write=False)
    zeros.setflags(write=False)
    return ones, zeros


def _marks(count: int, replies: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Give agent mask and turns (count,) of a response into which replies were inserted."""
    agent_mask, turns = np.ones(count, dtype=np.bool_), np.zeros(count, dtype=np.int64)
    for start, end in replies:
        agent_mask[start:end] = False
        turns[end:] += 1
    return read_only(agent_mask), read_only(turns)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"task.{name} is {value!r}; it must be a whole number of at least 1")
    return int(value)
