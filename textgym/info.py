"""The release as Gymnasium's ``info``, and the one reader of it, for every agent and every autoreset mode.

Left out on purpose: text and objects. Numeric arrays of one fixed shape and dtype are the only encoding that survives
Sync and Async vector environments, wrappers, and the hosts built on them; text is added only on request. Where the native
vector environment hands its own objects out (``infos="objects"``, ``step_infos``), they are read here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from textgym.episode import Episode, Release, read_only
from textgym.ledger import Ledger

_CRITERIA = "criteria/"
_LEDGER = "ledger/"
_ASKED = "ledger_asked"
_NUMBERS = ("num_tokens", "episode_id", "group_id", "is_success", "terminated", "truncated")
_FLAGS = frozenset(("is_success", "terminated", "truncated"))


def release_info(release: Release, max_response_tokens: int) -> dict[str, Any]:
    """Write a release as the ``info`` of one environment: arrays (max_response_tokens,) and Python scalars."""
    size, used = max_response_tokens, release.num_tokens
    token_rewards = np.zeros(size, dtype=np.float32)
    token_rewards[:used] = release.token_rewards
    token_streams = np.full(size, -1, dtype=np.int64)
    token_streams[:used] = release.streams
    agent_mask = np.zeros(size, dtype=np.bool_)
    agent_mask[:used] = release.agent_mask
    return {
        "token_rewards": token_rewards,
        "token_streams": token_streams,
        "agent_mask": agent_mask,
        "num_tokens": int(used),
        "episode_id": int(release.episode_id),
        "group_id": int(release.group_id),
        "is_success": bool(release.is_success),
        # The flags are step's own return values too, but vector environments reset theirs before an agent reads infos.
        "terminated": bool(release.terminated),
        "truncated": bool(release.truncated),
        **{f"{_CRITERIA}{name}": float(value) for name, value in release.criteria.items()},
        _ASKED: float(release.ledger.asked),
        **{f"{_LEDGER}{name}": float(amount) for name, amount in release.ledger.accounts.items()},
    }


def pending_info(episode: Episode, truncated: bool, max_response_tokens: int) -> dict[str, Any]:
    """Write the ``info`` of an ended episode whose release comes in a later step, by its ``episode_id``."""
    agent_mask = np.zeros(max_response_tokens, dtype=np.bool_)
    agent_mask[: len(episode.ids)] = episode.agent_mask
    return {
        "release_pending": True,
        "agent_mask": agent_mask,
        "num_tokens": len(episode.ids),
        "episode_id": int(episode.episode_id),
        "group_id": -1 if episode.prompt.group_id is None else int(episode.prompt.group_id),
        "terminated": not truncated,
        "truncated": truncated,
    }


def text_info(episode: Episode) -> dict[str, Any]:
    """Write what ``info_text=True`` adds: prompt, response text and what ended the episode, as strings."""
    return {"prompt": episode.prompt.text, "text": episode.text, "ended_by": episode.ended_by}


def batch_infos(items: Sequence[tuple[int, Mapping[str, Any]]], num_envs: int) -> dict[str, Any]:
    """Lay infos of single environments out as Gymnasium's vector environments do, all of them at once.

    Args:
        items: slot and info, in rising order of slots.
        num_envs: N.

    Returns:
        ``key`` -> array (N, ...), zeros (None, for objects) where a slot has no such key; ``_key`` -> bool (N,), where it has.
    """
    out: dict[str, Any] = {}
    every = np.array([slot for slot, _ in items])
    keys = dict.fromkeys(key for _, info in items for key in info)
    for key, mask in zip(keys, np.zeros((len(keys), num_envs), dtype=np.bool_), strict=True):
        values = [info[key] for _, info in items if key in info]
        slots = every if len(values) == len(items) else np.array([slot for slot, info in items if key in info])
        if isinstance(values[0], dict):
            out[key] = batch_infos(list(zip(slots.tolist(), values, strict=True)), num_envs)
        elif isinstance(values[0], bool | int | float):
            out[key] = np.zeros(num_envs, dtype=type(values[0]))
            out[key][slots] = values
        elif isinstance(values[0], np.ndarray):
            out[key] = np.zeros((num_envs, *values[0].shape), dtype=values[0].dtype)
            out[key][slots] = values
        else:
            out[key] = np.full(num_envs, fill_value=None, dtype=object)
            out[key][slots] = values
        mask[slots] = True
        out[f"_{key}"] = mask
    return out


def release_infos(released: Sequence[Release], num_envs: int, max_response_tokens: int) -> dict[str, Any]:
    """Lay releases of one step, in rising order of slots, out as ``batch_infos`` lays out the ``release_info`` of each."""
    slots = [release.slot for release in released]
    mask = np.zeros(num_envs, dtype=np.bool_)
    mask[slots] = True
    shape = num_envs, max_response_tokens
    token_rewards = np.zeros(shape, dtype=np.float32)
    token_streams = np.zeros(shape, dtype=np.int64)
    agent_mask = np.zeros(shape, dtype=np.bool_)
    token_streams[slots] = -1
    for release in released:
        used = release.num_tokens
        token_rewards[release.slot, :used] = release.token_rewards
        token_streams[release.slot, :used] = release.streams
        agent_mask[release.slot, :used] = release.agent_mask
    out: dict[str, Any] = {"token_rewards": token_rewards, "token_streams": token_streams, "agent_mask": agent_mask}
    for name in _NUMBERS:
        out[name] = np.zeros(num_envs, dtype=np.bool_ if name in _FLAGS else np.int64)
        out[name][slots] = [getattr(release, name) for release in released]
    out[_ASKED] = np.zeros(num_envs)
    out[_ASKED][slots] = [release.ledger.asked for release in released]
    out.update({f"_{key}": mask.copy() for key in out})
    named = [
        (
            release.slot,
            {f"{_CRITERIA}{name}": float(value) for name, value in release.criteria.items()}
            | {f"{_LEDGER}{name}": float(amount) for name, amount in release.ledger.accounts.items()},
        )
        for release in released
    ]
    return out | batch_infos(named, num_envs)  # not every release has the same criteria and accounts


class Ending(NamedTuple):
    """An episode that ended in this step, whether its rewards are released yet or not."""

    slot: int
    episode_id: int
    num_tokens: int
    truncated: bool


def endings(info: Mapping[str, Any]) -> list[Ending]:
    """Read which episodes ended in a vector environment's step, in the order of their slots."""
    source = info.get("final_info", info)
    if "ended" in source:
        return list(source["ended"])
    if "_episode_id" not in source:
        return []
    slots = to_host(source["_episode_id"]).nonzero()[0]
    columns = [to_host(source[key])[slots].tolist() for key in ("episode_id", "num_tokens", "truncated")]
    return [Ending(*ending) for ending in zip(slots.tolist(), *columns, strict=True)]


def dropped(info: Mapping[str, Any]) -> list[int]:
    """Read the ids of episodes whose release will never come: their reward failed under ``on_reward_error="drop"``."""
    if "dropped" not in info:
        return []
    if isinstance(info["dropped"], list):
        return list(info["dropped"])
    return to_host(info["dropped"])[to_host(info["_dropped"])].tolist()


def release(info: Mapping[str, Any], slot: int | None = None) -> Release | None:
    """Read the release in ``info``, or None where no episode ended in this step.

    Args:
        info: what ``step`` returned.
        slot: None for the scalar door; for a vector environment, the slot to read.
    """
    if slot is not None:
        return next((item for item in releases(info) if item.slot == slot), None)
    if not _OF_VECTOR.isdisjoint(info):
        raise ValueError("this is the info of a vector environment; read it with releases(info) or release(info, slot=i)")
    if "token_rewards" not in info:
        return None
    arrays = {key: np.asarray(to_host(value))[None] for key, value in info.items() if _is_ours(key)}
    return _read(arrays, _Named.of(arrays, {}), 0, 0)


def releases(info: Mapping[str, Any]) -> list[Release]:
    """Read all releases in a vector environment's ``info``, in the order of their slots, in any autoreset mode.

    With reward workers these are releases of episodes that ended in earlier steps; ``episode_id`` says which.
    """
    if "released" in info:  # infos="objects"
        return list(info["released"])
    if "late" in info:
        return releases(info["late"])
    source = info.get("final_info", info)  # SAME_STEP puts the ended episode's info there
    if "released" in source:
        return list(source["released"])
    mask = source.get("_token_rewards")
    if mask is None:
        if "token_rewards" in source:
            raise ValueError("this is the info of a single environment; read it with release(info)")
        return []
    arrays = {key: to_host(value) for key, value in source.items() if _is_ours(key)}
    named = _Named.of(arrays, source)
    return [_read(arrays, named, slot, slot) for slot in to_host(mask).nonzero()[0].tolist()]


_OF_VECTOR = frozenset(("final_info", "_token_rewards", "late", "ended", "released"))
_KEYS = frozenset(("token_rewards", "token_streams", "agent_mask", *_NUMBERS, _ASKED))


def _is_ours(key: str) -> bool:
    return key in _KEYS or key.startswith((_CRITERIA, _LEDGER))


def to_host(value: Any) -> Any:
    """Give a tensor as a numpy array; everything else as it is."""
    if isinstance(value, np.ndarray):
        return value
    return value.cpu().numpy() if hasattr(value, "cpu") else value


class _Named(NamedTuple):
    """Criteria and accounts, which an episode may lack: name, numbers (N,), and where they are meant; None: everywhere."""

    criteria: list[tuple[str, Any, Any]]
    accounts: list[tuple[str, Any, Any]]

    @classmethod
    def of(cls, arrays: Mapping[str, Any], source: Mapping[str, Any]) -> _Named:
        """Find them among ``arrays``, and their masks in ``source``."""
        keys = [[key for key in arrays if key.startswith(prefix)] for prefix in (_CRITERIA, _LEDGER)]
        return cls(*([(key.split("/", 1)[1], arrays[key], to_host(source.get(f"_{key}"))) for key in part] for part in keys))


def _read(arrays: Mapping[str, Any], named: _Named, row: int, slot: int) -> Release:
    used = int(arrays["num_tokens"][row])

    def numbers(columns: list[tuple[str, Any, Any]]) -> dict[str, float]:
        return {name: float(column[row]) for name, column, mask in columns if mask is None or mask[row]}

    return Release(
        episode_id=int(arrays["episode_id"][row]),
        slot=slot,
        token_rewards=read_only(arrays["token_rewards"][row, :used]),
        streams=read_only(arrays["token_streams"][row, :used]),
        agent_mask=read_only(arrays["agent_mask"][row, :used]),
        num_tokens=used,
        terminated=bool(arrays["terminated"][row]),
        truncated=bool(arrays["truncated"][row]),
        is_success=bool(arrays["is_success"][row]),
        group_id=int(arrays["group_id"][row]),
        criteria=numbers(named.criteria),
        ledger=Ledger(float(arrays[_ASKED][row]), numbers(named.accounts)),
    )
