"""The frozen objects that travel along the path of the data: Prompt, Episode, Span, Release.

Left out on purpose: behaviour. Tokenisation is in ``tokenizer``, scoring in ``rewards`` and ``rules``; these objects only
carry what was sampled and what was paid. Arrays inside them are read-only, so that a reward function cannot change the
episode that the next one sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.ledger import Ledger

EndedBy = Literal["eos", "stop", "task", "length"]


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view of ``array`` that cannot be written to."""
    view = array.view()
    view.setflags(write=False)
    return view


@dataclass(frozen=True)
class Prompt:
    """What an episode starts from.

    An empty ``text`` without ``ids`` starts from the tokenizer's begin-of-text token (end-of-text where it has none):
    a language model cannot predict from nothing.
    """

    text: str
    """The prompt as text."""
    ids: Sequence[int] | npt.NDArray[np.int64] | None = None
    """Token ids; None lets the environment encode ``text``, without special tokens."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the task wants to find again when it rewards the episode (an answer, a source)."""
    group_id: int | None = None
    """Episodes of one group share their prompt; the environment sets it at reset."""


@dataclass(frozen=True, eq=False)
class Episode:
    """One prompt and its response: what a reward function sees. T = ``len(ids)`` response tokens.

    ``text == tokenizer.decode(ids, skip_special_tokens=True)``, always; ``ids`` are exactly as sampled, never re-encoded.
    """

    prompt: Prompt
    """The prompt; its ``ids`` are set."""
    ids: npt.NDArray[np.int64]
    """(T,) response token ids, as sampled by the agent or inserted by the environment."""
    text: str
    """The response as text, special tokens left out."""
    offsets: npt.NDArray[np.int64]
    """(T, 2) half-open range of characters of ``text`` that each token holds; special tokens are zero-width."""
    agent_mask: npt.NDArray[np.bool_]
    """(T,) True where the agent chose the token."""
    turns: npt.NDArray[np.int64]
    """(T,) turn of each token, from 0: the agent's message of that number, or the reply that answers it."""
    ended_by: EndedBy | None
    """What ended the episode; before a reply, what ended the agent's turn; None while the text grows."""
    episode_id: int = 0
    """Number of the episode in its environment."""

    @classmethod
    def unread(cls, read: Callable[[], tuple[str, npt.NDArray[np.int64]]], **others: Any) -> Episode:
        """Build an episode whose ``text`` and ``offsets`` are read when somebody first asks: many rewards never do.

        Args:
            read: gives the two.
            others: all other fields.
        """
        episode = object.__new__(cls)
        vars(episode).update(others, _read=read)
        return episode

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            if name not in ("text", "offsets") or "_read" not in vars(self):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            vars(self)["text"], vars(self)["offsets"] = self._read()
            return vars(self)[name]

    def __getstate__(self) -> dict[str, Any]:
        """Give the fields: a copy, or a worker in another process, has no use for the tokenizer."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def last_characters(self) -> npt.NDArray[np.int64]:
        """Give the last character that each token holds, int64 (T,); where a token holds none, the place it stands at."""
        starts, ends = self.offsets.T
        return np.where(ends > starts, ends - 1, ends)

    def agent_tokens(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """Find the agent's tokens that hold a character of ``text[start:end]``, in order: what a span there can pay.

        Tokens without characters (special ones) hold none, wherever they stand.
        """
        starts, ends = self.offsets.T
        return ((starts < end) & (ends > start) & (ends > starts) & self.agent_mask).nonzero()[0]

    def token_at(self, position: int) -> int:
        """Find the last token that holds the character at ``position``.

        Raises:
            ValueError: the text has no such character.
        """
        holds = np.flatnonzero((self.offsets[:, 0] <= position) & (self.offsets[:, 1] > position))
        if len(holds) == 0:
            raise ValueError(f"position is {position}; episode {self.episode_id} has characters 0..{len(self.text) - 1}")
        return int(holds[-1])


@dataclass(frozen=True)
class Span:
    """A half-open range of **characters** of the response text, with a reward.

    The reward is paid on the last agent token that overlaps the range, so that with reward-to-go every earlier token of
    its stream sees all of it. ``split="uniform"`` spreads it over the overlapping agent tokens instead; that is not
    causal: token i then sees only the rest, so a good span teaches longer text and a bad one shorter.
    """

    start: int
    """First character."""
    end: int
    """One past the last character."""
    reward: float
    """What the range earns in total."""
    stream: int | None = None
    """Stream that the range's tokens belong to; None leaves the partition to ``streams_fn`` or to the default."""
    split: Literal["last", "uniform"] = "last"
    """How the reward is laid on the range's tokens."""


@dataclass(frozen=True, eq=False)
class Release:
    """The hand-over of an ended episode's token rewards, as ``textgym.release`` and ``textgym.releases`` read it."""

    episode_id: int
    """Number of the episode in its environment."""
    slot: int
    """Row of the vector environment (0 from the scalar door)."""
    token_rewards: npt.NDArray[np.float32]
    """(T,) reward of each response token; their sum is the episode's return."""
    streams: npt.NDArray[np.int64]
    """(T,) stream of each token, -1 where the environment wrote it."""
    agent_mask: npt.NDArray[np.bool_]
    """(T,) True where the agent chose the token."""
    num_tokens: int
    """T."""
    terminated: bool
    """The episode is over; nothing follows."""
    truncated: bool
    """The episode was cut by the length limit and agents bootstrap."""
    is_success: bool
    """The task's verdict."""
    group_id: int
    """Episodes of one group share their prompt."""
    criteria: Mapping[str, float] = field(default_factory=dict)
    """Total of each named criterion, before weighting."""
    ledger: Ledger = field(default_factory=Ledger)
    """What was asked for, and what weights and other stages took of it on its way to ``token_rewards``."""
