"""What a task is, a task for a user's own prompts, and the one resolver of their names.

Left out on purpose: a list of tasks to edit. A task is named by an environment id, a short name of a shipped task,
``"module:Name"``, or handed over as an object; ``resolve_task`` is the only place that knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from textgym.action_masks import MaskTable
from textgym.credit import Assigned
from textgym.criteria import combine
from textgym.episode import Episode, Prompt
from textgym.names import check_arguments, check_reward_function, did_you_mean, resolve_name
from textgym.prompts import PromptLike, check_room, encode_prompt, ids_of, read_prompts
from textgym.rewards import Reward, RewardFn, StreamsFn
from textgym.tasks import DEFAULT_TASK, TASKS
from textgym.tokenizer import TextTokenizer

Demonstration: TypeAlias = tuple[Prompt, str | Sequence[str]]


@runtime_checkable
class Task(Protocol):
    """Prompts and rewards, perhaps streams, demonstrations and a score.

    Derive from this class to inherit the defaults, or hand over any object that has all of its members. ``tokenizer``,
    ``sample`` and ``rewards`` have no default.
    """

    tokenizer: Any
    """``tokenizers.Tokenizer``, Hugging Face tokenizer backed by one, or ``TextTokenizer``."""
    max_prompt_tokens: int = 64
    """Room for the prompt; a longer prompt is an error, never cut."""
    max_new_tokens: int = 64
    """Length limit of what the agent writes in one episode, in tokens."""
    max_response_tokens: int | None = None
    """Room for the whole response, replies included, in tokens; None: ``max_new_tokens``."""
    max_turn_tokens: int | None = None
    """Length limit of one turn of the agent, in tokens; it ends the turn. None: only the others."""
    stop: Sequence[str] = ()
    """Strings that end the episode at the token that completes them."""
    turn_stop: Sequence[str] = ()
    """Strings that end the agent's turn at the token that completes them, as end-of-text does; for tasks that reply."""
    length_limit: Literal["terminate", "truncate"] = "terminate"
    """At the length limit: "terminate" judges the text as it stands, nobody bootstraps; "truncate" lets agents bootstrap."""
    weights: Mapping[str, float] = {}
    """Factor of each named criterion; names that are not listed weigh 1."""
    causal_streams: bool = True
    """Whether a token's stream is fixed by the text before it; if not, ``gae_lambda = 1`` is the only unbiased choice."""
    assigner: Any = None
    """Splits what a text earns in total over its tokens: short name, "module:Name" or object (``textgym.credit``); None: the
    rewards stay where the task pays them."""
    token_masks: MaskTable | npt.NDArray[np.bool_] | None = None
    """Tokens that the agent may write: one mask, bool (V,), or the table that ``mask_numbers`` points into; None: every one."""

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw a prompt; ``rng`` is the only source of chance."""
        ...

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Reward finished episodes, one item each; ``textgym.rewards`` lists what an item can be."""
        ...

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.ArrayLike] | None:
        """Give each response token a stream, int (T,) per episode; None: one stream, or what the spans say."""
        return None

    def reply(self, episode: Episode) -> str | None:
        """Answer the agent's turn, or None: the episode is over.

        A task that defines this has turns: end-of-text, ``turn_stop`` and ``max_turn_tokens`` end the agent's turn, not the
        episode. The reply's tokens enter the response with agent mask False; they are never paid and never trained on. A
        reply is taken as it is: between messages of a chat template it also writes what the template puts there.

        Args:
            episode: the response so far; ``ended_by`` says what ended the turn.
        """
        return None

    def ended(self, prompt: Prompt, ids: npt.NDArray[np.int64]) -> bool:
        """Say whether the response so far (int64 (t,)) is complete; asked after every token if a task defines it."""
        return False

    def mask_numbers(self, prompts: Sequence[Prompt], responses: Sequence[npt.NDArray[np.int64]]) -> npt.ArrayLike:
        """Say which mask of the table ``token_masks`` holds after each response so far (int64 (t,)): integers (n,)."""
        return np.zeros(len(prompts), dtype=np.int64)

    def success(self, episode: Episode) -> bool:
        """Judge one episode."""
        return False

    def score(self, episodes: Sequence[Episode]) -> float:
        """Judge a set of episodes, in [0, 1]; default: the share of successes."""
        return float(np.mean([self.success(episode) for episode in episodes])) if episodes else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Name further figures over a set of episodes, for tables and progress bars."""
        return {}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[Demonstration]:
        """Draw examples of prompt and response for a supervised warm-up; empty where a task has none.

        A response is a text, or for a task that replies the list of its messages: the agent's, the reply, and so on.
        """
        return []


class PromptTask(Task):
    """A user's own prompts and reward function.

    Functions and the tokenizer (or a function without arguments that makes it) may be named, ``"module:Name"``: an
    environment's ``spec`` can then be written as JSON.

    Args:
        prompts: a list, a ``datasets.Dataset`` or the name of a ``.jsonl`` or ``.parquet`` file; its rows are texts, lists of
            messages or of token ids, ``Prompt`` objects, or dicts of one of these (``"prompt"``) and metadata; see
            ``textgym.prompts``. Each reset draws one.
        tokenizer: see ``TextTokenizer``.
        reward_fn: ``(episodes) -> one reward per episode``; see ``textgym.rewards``. A Mapping of names to such functions
            makes each a criterion.
        streams_fn: ``(episodes) -> int (T,) per episode``; default: one stream, or what the spans say.
        max_new_tokens: length limit of what the agent writes.
        max_prompt_tokens: room for the prompt; default: the longest of ``prompts``.
        stop: strings that end the episode.
        reply_fn: ``(episode) -> text or None`` at the end of each of the agent's turns; see ``Task.reply``.
        turn_stop: strings that end a turn.
        max_turn_tokens: length limit of a turn.
        max_response_tokens: room for the agent's tokens and the replies'.
        length_limit: "terminate" or "truncate"; see ``Task``.
        weights: factor of each named criterion.
        causal_streams: whether a token's stream is fixed by the text before it.
        assigner: splits what a text earns in total over its tokens; see ``Task.assigner``.
        success_fn: ``(episode) -> bool``; default: never.
        score_fn: ``(episodes) -> float`` in [0, 1]; default: the share of successes.
        demonstrations: pairs of prompt and response for a supervised warm-up; see ``Task.demonstrations``.
        token_masks: the tokens that are allowed, bool (V,), or the table that ``mask_fn`` points into; see ``Task``.
        mask_fn: ``(prompts, responses) -> integers (n,)``; see ``Task.mask_numbers``.

    Raises:
        ValueError: there is no prompt, or one is longer than ``max_prompt_tokens``.
    """

    def __init__(
        self,
        prompts: Sequence[PromptLike] | str | Any,
        tokenizer: Any,
        reward_fn: RewardFn | Mapping[str, RewardFn] | str,
        streams_fn: StreamsFn | str | None = None,
        *,
        max_new_tokens: int = 64,
        max_prompt_tokens: int | None = None,
        stop: Sequence[str] = (),
        reply_fn: Callable[[Episode], str | None] | str | None = None,
        turn_stop: Sequence[str] = (),
        max_turn_tokens: int | None = None,
        max_response_tokens: int | None = None,
        length_limit: Literal["terminate", "truncate"] = "terminate",
        weights: Mapping[str, float] | None = None,
        causal_streams: bool = True,
        assigner: Any = None,
        success_fn: Callable[[Episode], bool] | str | None = None,
        score_fn: Callable[[Sequence[Episode]], float] | str | None = None,
        demonstrations: Sequence[tuple[PromptLike, str | Sequence[str]]] = (),
        token_masks: MaskTable | npt.NDArray[np.bool_] | None = None,
        mask_fn: Callable[..., npt.ArrayLike] | str | None = None,
    ) -> None:
        functions: dict[str, Any] = {"streams_fn": streams_fn, "success_fn": success_fn, "score_fn": score_fn}
        functions |= {"reply_fn": reply_fn, "mask_fn": mask_fn}
        functions = {name: _named(function) for name, function in functions.items() if function is not None}
        functions["reward_fn"] = _combined(reward_fn) if isinstance(reward_fn, Mapping) else _named(reward_fn)
        for name, function in functions.items():
            if not callable(function):
                what = "a list of episodes" if name in ("reward_fn", "streams_fn", "score_fn") else "one episode"
                raise ValueError(f"{name} is {function!r}; give a function of {what}, or its name 'module:Name'")
        if isinstance(reward_fn, Mapping):
            for name, function in reward_fn.items():
                check_reward_function(_named(function), f"criterion {name!r}")
        else:
            check_reward_function(functions["reward_fn"], "reward_fn")
        self.assigner = assigner
        if isinstance(functions["reward_fn"], Assigned):  # its two halves, so that the ledger knows of both
            if assigner is not None:
                raise ValueError(f"reward_fn has the assigner {functions['reward_fn'].assigner} already; leave assigner out")
            functions["reward_fn"], self.assigner = functions["reward_fn"].score, functions["reward_fn"].assigner
        tokenizer = _named(tokenizer)
        if callable(tokenizer) and not hasattr(tokenizer, "encode"):
            tokenizer = tokenizer()
        self.tokenizer = TextTokenizer(tokenizer)
        self.prompts = [encode_prompt(prompt, self.tokenizer) for prompt in read_prompts(prompts)]
        longest = max(len(ids_of(prompt)) for prompt in self.prompts)
        self.max_prompt_tokens = longest if max_prompt_tokens is None else max_prompt_tokens
        for number, prompt in enumerate(self.prompts):
            check_room(prompt, self.max_prompt_tokens, f"prompt {number}")
        self.max_new_tokens = max_new_tokens
        self.max_turn_tokens = max_turn_tokens
        self.max_response_tokens = max_response_tokens
        self.stop = tuple([stop] if isinstance(stop, str) else stop)
        self.turn_stop = tuple([turn_stop] if isinstance(turn_stop, str) else turn_stop)
        if "reply_fn" in functions:
            self.reply = functions["reply_fn"]  # type: ignore[method-assign]
        self.token_masks = token_masks
        if "mask_fn" in functions:
            self.mask_numbers = functions["mask_fn"]  # type: ignore[method-assign]
        self.length_limit = length_limit
        self.weights = dict(weights or {})
        self.causal_streams = causal_streams
        self._reward_fn = functions["reward_fn"]
        self._streams_fn, self._success_fn, self._score_fn = map(functions.get, ("streams_fn", "success_fn", "score_fn"))
        self._demonstrations = [(encode_prompt(prompt, self.tokenizer), text) for prompt, text in demonstrations]

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw one of the prompts."""
        return self.prompts[int(rng.integers(len(self.prompts)))]

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Call the user's reward function."""
        return self._reward_fn(episodes)

    def streams(self, episodes: Sequence[Episode]) -> Sequence[npt.ArrayLike] | None:
        """Call the user's streams function, if there is one."""
        return None if self._streams_fn is None else self._streams_fn(episodes)

    def success(self, episode: Episode) -> bool:
        """Call the user's success function, if there is one."""
        return False if self._success_fn is None else bool(self._success_fn(episode))

    def score(self, episodes: Sequence[Episode]) -> float:
        """Call the user's score function, or give the share of successes."""
        return super().score(episodes) if self._score_fn is None else float(self._score_fn(episodes))

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[Demonstration]:
        """Draw ``count`` of the given demonstrations, with replacement."""
        if not self._demonstrations:
            return []
        return [self._demonstrations[int(i)] for i in rng.integers(len(self._demonstrations), size=count)]


def _combined(criteria: Mapping[str, Any]) -> RewardFn:
    return combine({name: _named(function) for name, function in criteria.items()})


def _named(value: Any) -> Any:
    """Give what ``"module:Name"`` names; everything else as it is."""
    return resolve_name(value) if isinstance(value, str) else value


def resolve_task(task: Any, **task_kwargs: Any) -> Task:
    """Turn an environment id, a short name, ``"module:Name"``, a class or an object into a task.

    Args:
        task: what names the task; None: ``PromptTask`` where ``prompts`` is among the arguments, else the number duel.
        task_kwargs: arguments of the task's constructor; an object that is already a task takes none.

    Raises:
        ValueError: nothing has that name, or its constructor does not take these arguments; says what there is.
        TypeError: the object is not a task; says what it lacks.
    """
    if task is None:
        task = PromptTask if {"prompts", "reward_fn"} & task_kwargs.keys() else DEFAULT_TASK
    if isinstance(task, str):
        found, fixed = find_task(task)
        return resolve_task(found, **(fixed | task_kwargs))
    if (callable(task) and not isinstance(task, Task)) or inspect.isclass(task):
        check_arguments(task, **task_kwargs)
        return resolve_task(task(**task_kwargs))
    if task_kwargs:
        raise TypeError(f"{type(task).__name__} is a task already, so it takes no arguments {sorted(task_kwargs)}")
    missing = {m for m in [*vars(Task), "tokenizer"] if not (m.startswith("_") or "mask" in m or hasattr(task, m))}
    missing |= {m for m in ("sample", "rewards") if getattr(getattr(task, m, None), "__func__", None) is getattr(Task, m)}
    if missing:
        raise TypeError(
            f"{type(task).__name__} is not a task: it lacks {', '.join(sorted(missing))}; derive it from textgym.Task to "
            "inherit defaults for all but tokenizer, sample and rewards"
        )
    return task


def find_task(name: str) -> tuple[Any, dict[str, Any]]:
    """Find what a task's name names, and the arguments that go with it (an environment id may fix some).

    Raises:
        ValueError: nothing has that name; says what there is.
    """
    if name in TASKS:
        return resolve_name(TASKS[name]), {}
    module_name, _, env_id = name.rpartition(":")
    if module_name and (env_id not in gym.registry or module_name != "textgym"):  # but "textgym:TextGen-v0" is an id
        return resolve_name(name), {}
    spec = gym.registry.get(env_id)
    if spec is not None and _is_ours(spec):
        task = spec.kwargs.get("task")
        found, fixed = find_task(task) if isinstance(task, str) else (task, {})
        return found, fixed | {key: value for key, value in spec.kwargs.items() if key != "task"}
    known = [*TASKS, *(i for i, other in gym.registry.items() if _is_ours(other))]
    raise ValueError(f"there is no task {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}, and 'module:Name'")


def _is_ours(spec: EnvSpec) -> bool:
    return str(spec.entry_point).startswith("textgym.")
