"""Helpers for reward functions: find parts of a response, pay them, hold a constant mass.

A reward function finds parts (ranges of characters of ``episode.text``), says what each earns, and returns spans::

    def reward(episode):  # of one episode; a reward function does this for each of a list
        found = sentences(episode)
        return pay(found, share_mass([quality(episode, part) for part in found])) if found else []

Left out on purpose: criteria, which are ``criteria``'s; token indices, because ``resolve`` alone goes from characters to
tokens, and because a part found in the text stays right under every tokenizer; checks of what a reward may be, because
``resolve`` has them and names the episode; linguistics, because a rule of one paragraph can be read and relied on, and a
better splitter can build a ``Part`` itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Span

_SPACED = ".!?…؟۔।"  # end a sentence where whitespace or the text's end follows
_UNSPACED = "。！？"  # end a sentence whatever follows
_CLOSING = ")]}”’»›」』）】》〉］｝"
_EITHER = "\"'“‘«‹"  # quotes that close in some texts and open in others
_SENTENCE_END = re.compile(f"[{_SPACED}{_UNSPACED}][{re.escape(_SPACED + _UNSPACED + _CLOSING + _EITHER)}]*")
_JSON = json.JSONDecoder()


class Part(NamedTuple):
    """A half-open range of **characters** of ``episode.text``; ``text[part.start : part.end]`` is what it holds."""

    start: int
    """First character."""
    end: int
    """One past the last character."""


def matches(episode: Episode, pattern: str | re.Pattern[str], group: int | str = 0, *, all_text: bool = False) -> list[Part]:
    """Find the non-overlapping matches of a regular expression.

    Args:
        episode: the episode whose text is searched.
        pattern: regular expression, as text or compiled.
        group: index or name of the group whose range is wanted; 0 is the whole match.
        all_text: also return parts that no agent token overlaps; ``resolve`` refuses to pay those.

    Returns:
        Ranges of characters, in the order of the matches. Matches in which the group took no part, or is empty, are left
        out: there is nothing in them to pay.

    Raises:
        ValueError: the pattern is for bytes, or has no such group.
        re.error: the pattern is no regular expression.
    """
    compiled = re.compile(pattern)
    if not isinstance(compiled.pattern, str):
        raise ValueError(f"pattern is {compiled.pattern!r}, for bytes; give one for text: parts are ranges of characters")
    if group not in compiled.groupindex and group not in range(compiled.groups + 1):
        names = "".join(f", {name!r}" for name in compiled.groupindex)
        raise ValueError(
            f"group is {group!r}; {compiled.pattern!r} has the groups 0..{compiled.groups}{names}; name one of these"
        )
    found = [Part(*match.span(group)) for match in compiled.finditer(episode.text)]
    return _overlapped([part for part in found if part.start < part.end], episode, all_text)


def lines(episode: Episode, *, all_text: bool = False) -> list[Part]:
    r"""Split the text into lines, each with its newline character.

    Only "\n" ends a line; carriage returns, form feeds and Unicode's line separators are characters like any other. All
    lines together tile the text; a text that ends in "\n" has no empty line after it.

    Args:
        episode: the episode whose text is split.
        all_text: also return lines that no agent token overlaps; ``resolve`` refuses to pay those.

    Returns:
        Ranges of characters, in order.
    """
    found = [Part(*match.span()) for match in re.finditer(r"[^\n]+\n?|\n", episode.text)]
    return _overlapped(found, episode, all_text)


def sentences(episode: Episode, *, all_text: bool = False) -> list[Part]:
    r"""Split the text into sentences by a simple rule.

    A sentence ends after a run of terminators, with the closing quotes and brackets in and behind it, where

    * whitespace or the end of the text follows (``. ! ? …``, Arabic ``؟ ۔``, Devanagari ``।``; so 3.14 ends none), or
    * the run has a terminator of scripts without spaces (``。 ！ ？``), whatever follows.

    Quotes that open in some texts and close in others (``" ' “ ‘ « ‹``) belong to the run only where whitespace or the end
    of the text follows. A rest without terminator is a sentence too. Whitespace between sentences, before the first and
    after the last belongs to none; a newline alone ends none (``lines`` does that). Abbreviations are not known: "Dr. No"
    is two sentences. Nor are other terminators.

    Args:
        episode: the episode whose text is split.
        all_text: also return sentences that no agent token overlaps; ``resolve`` refuses to pay those.

    Returns:
        Ranges of characters, in order, without overlap, none empty.
    """
    text, start, found = episode.text, 0, []
    for end in (*_sentence_ends(text), len(text)):
        inside = text[start:end]
        part = Part(end - len(inside.lstrip()), start + len(inside.rstrip()))
        if part.start < part.end:
            found.append(part)
        start = end
    return _overlapped(found, episode, all_text)


def _sentence_ends(text: str) -> Iterator[int]:
    for run in _SENTENCE_END.finditer(text):
        if run.end() == len(text) or text[run.end()].isspace():
            yield run.end()
        elif any(character in _UNSPACED for character in run.group()):
            yield run.start() + len(run.group().rstrip(_EITHER))


def turns(episode: Episode) -> list[Part]:
    """Give the characters that the agent's tokens of each turn hold, from the first to the last.

    Returns:
        One range of characters per turn, 0 up to the agent's last: entry k is turn k, always. A turn without characters
        (only special tokens) is an empty part at its place; ``pay`` leaves it out where its reward is 0.
    """
    own = episode.turns[episode.agent_mask]
    parts: list[Part] = []
    for turn in range(int(own.max()) + 1 if len(own) else 0):
        starts, ends = episode.offsets[episode.agent_mask][own == turn].T
        wide = starts < ends
        if wide.any():
            parts.append(Part(int(starts[wide].min()), int(ends[wide].max())))
        else:
            place = int(ends[0]) if len(ends) else parts[-1].end if parts else 0
            parts.append(Part(place, place))
    return parts


def json_field(episode: Episode, *path: str | int, all_text: bool = False) -> Part | None:
    """Find the value at ``path`` in a text that is one JSON value, as ``json.loads`` reads it.

    Whitespace around the value is allowed. A string is found with its quotes. Of duplicate keys the last counts. So
    ``json.loads(text[part.start : part.end])`` is ``json.loads(text)[path[0]][path[1]]...``.

    Args:
        episode: the episode whose text is read.
        path: keys (str) of objects and indices (int, from 0) of arrays, from the outside in; none is the whole value.
        all_text: also return a value that no agent token overlaps; ``resolve`` refuses to pay that.

    Returns:
        Range of characters; None where ``json.loads`` refuses the text, or it has no such field.

    Raises:
        ValueError: an item of the path is neither a str nor an int of at least 0.
    """
    for step in path:
        if not isinstance(step, str | int) or isinstance(step, bool) or (isinstance(step, int) and step < 0):
            raise ValueError(f"path has {step!r}; allowed are keys (str) and list indices from 0 (int), counted from the front")
    text = episode.text
    try:
        json.loads(text)
        part: Part | None = _json_value(text, _after_space(text, 0))
        for step in path:
            # The last of the members of that name: what a dict keeps of duplicate keys.
            part = dict(_json_members(text, part.start)).get(step)
            if part is None:
                return None
    except (ValueError, RecursionError):  # no JSON, a number of too many digits, or nested too deep
        return None
    return next(iter(_overlapped([part], episode, all_text)), None)


def _json_members(text: str, start: int) -> Iterator[tuple[str | int, Part]]:
    """Give key or index, and range, of each member of the valid JSON value at ``start``; none where it has no members."""
    if text[start] not in "{[":
        return
    position = _after_space(text, start + 1)
    index = 0
    while text[position] not in "}]":
        key: str | int = index
        if text[start] == "{":
            key, position = _JSON.raw_decode(text, position)
            position = _after_space(text, _after_space(text, position) + 1)  # past the colon
        value = _json_value(text, position)
        yield key, value
        position = _after_space(text, value.end)
        if text[position] == ",":
            position = _after_space(text, position + 1)
        index += 1


def _json_value(text: str, start: int) -> Part:
    return Part(start, _JSON.raw_decode(text, start)[1])


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\n", "\r"):
        position += 1
    return position


def _overlapped(parts: list[Part], episode: Episode, all_text: bool) -> list[Part]:
    """Keep the parts that hold a character of an agent's token (``Episode.agent_tokens``).

    Counted for all parts at once: the tokens that start before a part's end, less those that also end by its start.
    """
    if all_text:
        return parts
    wide = episode.agent_mask & (episode.offsets[:, 1] > episode.offsets[:, 0])
    starts, ends = np.sort(episode.offsets[wide], axis=0).T
    ranges = np.array(parts, dtype=np.int64).reshape(len(parts), 2)
    begun = np.searchsorted(starts, ranges[:, 1], side="left")
    over = np.searchsorted(ends, ranges[:, 0], side="right")
    return [part for part, overlapped in zip(parts, begun > over, strict=True) if overlapped]


def pay_turns(episode: Episode, rewards: Sequence[float]) -> npt.NDArray[np.float64]:
    """Pay the agent's turns, each on its last token: also a turn without characters, which no span can reach.

    Args:
        episode: the episode whose turns are paid.
        rewards: one number per turn of the agent, in their order.

    Returns:
        float64 (T,), as a reward function returns it.

    Raises:
        ValueError: there is another number of turns.
    """
    turns_of_agent = np.where(episode.agent_mask, episode.turns, -1)
    kinds = [turn for turn in np.unique(turns_of_agent).tolist() if turn >= 0]
    if len(rewards) != len(kinds):
        raise ValueError(
            f"episode {episode.episode_id} has {len(kinds)} turns of the agent and {len(rewards)} rewards; give one each"
        )
    paid = np.zeros(len(episode.ids), dtype=np.float64)
    for turn, reward in zip(kinds, rewards, strict=True):
        paid[np.flatnonzero(turns_of_agent == turn)[-1]] = reward
    return paid


def pay(
    parts: Sequence[Part], rewards: float | npt.ArrayLike, *, streams: Literal[True] | Sequence[int] | None = None
) -> list[Span]:
    """Turn parts and what they earn into the spans that a reward function returns for an episode.

    What a reward or a stream may be is checked by ``resolve``, which names the episode.

    Args:
        parts: what to pay, ranges of characters.
        rewards: one number per part, or one real number that is paid on every part.
        streams: None names no streams; True makes part i stream i; else one stream per part. Agent tokens in no part are
            stream 0.

    Returns:
        One span per part, in order; empty parts with reward 0 are left out, as there is no text to pay.

    Raises:
        ValueError: the lengths differ, a part is None or no ``Part``, or an empty part earns something.
    """
    parts = listed(parts, "parts", "give a list of Part(start, end)")
    earned: list[Any]
    if isinstance(rewards, Real) or getattr(rewards, "ndim", None) == 0:
        earned = [rewards] * len(parts)
    else:
        earned = listed(rewards, "rewards", "give one real number, or a list of one number per part")
    if streams is None or streams is True:
        named = list(range(len(parts))) if streams else [None] * len(parts)
    else:
        named = listed(streams, "streams", "give None, True (part i is stream i), or a list of one stream per part")
    for what, values in (("rewards", earned), ("streams", named)):
        if len(values) != len(parts):
            raise ValueError(f"pay got {len(parts)} parts but {len(values)} {what}; give one per part, in their order")
    spans = []
    for i, (part, reward, stream) in enumerate(zip(parts, earned, named, strict=True)):
        _check_part(i, part)
        if part.start < part.end:
            spans.append(Span(part.start, part.end, reward, stream))
        elif reward != 0:
            raise ValueError(
                f"part {i} is {part}, empty, and earns {reward}; an empty part holds no token to pay: leave it out, give it "
                "reward 0, or pay another part"
            )
    return spans


def _check_part(i: int, part: Any) -> None:
    if part is None:
        raise ValueError(
            f"part {i} is None; the field was not found; leave it out, and return [] (no reward) or a number (paid on the "
            "last agent token) for such an episode"
        )
    if not isinstance(part, Part):
        raise ValueError(f"part {i} is {part!r}, a {type(part).__name__}; parts are Part(start, end), in characters")


def listed(values: Any, what: str, allowed: str) -> list[Any]:
    """List a sequence, array or tensor; a ``Part`` is one thing, not a sequence of two numbers."""
    sequence = isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray | Part)
    if not sequence and getattr(values, "ndim", 0) == 0:
        raise ValueError(f"{what} is {str(values)[:200]}, a {type(values).__name__}; {allowed}")
    return list(values)


def share_mass(
    scores: npt.ArrayLike, total: float = 1.0, *, when_zero: Literal["even", "none", "error"] = "even"
) -> npt.NDArray[np.float64]:
    """Normalise the scores of parts, so that their shares add up to ``total``: share_i = total * score_i / sum(scores).

    With a constant mass, a text of more parts earns no more in all.

    Args:
        scores: n finite numbers of at least 0, at least one.
        total: what the shares add up to (to 12 digits; for a total that float32, the type of rewards, can hold).
        when_zero: what happens where every score is 0: "even" gives each part total / n, "none" gives every part 0 (the
            mass is not held then), "error" raises.

    Returns:
        float64 (n,), one share per part. ``resolve`` refuses a share that float32 would turn into 0, as it does any such
        reward; set scores that are that small beside the others (1e-45) to 0.

    Raises:
        ValueError: naming the score, the total or the rule that is not allowed; or all scores are 0 under "error".
    """
    if when_zero not in ("even", "none", "error"):
        raise ValueError(f"when_zero is {when_zero!r}; allowed are 'even', 'none' and 'error'")
    if not math.isfinite(total):
        raise ValueError(f"total is {total}; allowed are finite numbers")
    given = np.asarray(scores)
    if given.ndim != 1 or given.dtype.kind not in "biuf" or len(given) == 0:
        raise ValueError(f"scores are {scores!r}; give a list or 1-D array of at least one number, one per part")
    given = given.astype(np.float64)
    for i in np.flatnonzero(~((given >= 0) & np.isfinite(given)))[:1]:  # NaN compares false
        raise ValueError(f"score {i} is {given[i]}; scores are finite and at least 0; clip or shift them first")
    largest = given.max()
    if largest > 0:
        weights = given / largest  # so that neither a sum overflows nor a quotient of denormal numbers loses its digits
        return total * (weights / weights.sum())
    if when_zero == "error":
        raise ValueError(f"all {len(given)} scores are 0, and when_zero='error'; give a score above 0, or 'even' or 'none'")
    return np.full(len(given), total / len(given) if when_zero == "even" else 0.0)
