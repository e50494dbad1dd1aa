"""The release as Gymnasium's ``info``, and the one reader of it, for every agent and every autoreset mode.

Left out on purpose: text and objects. Numeric arrays of one fixed shape and dtype are the only encoding that survives
Sync and Async vector environments, wrappers, and the hosts built on them; text is added only on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from textgym.episode import Episode, Release, read_only

_CRITERIA = "criteria/"


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
    }


def text_info(episode: Episode) -> dict[str, Any]:
    """Write what ``info_text=True`` adds: prompt, response text and what ended the episode, as strings."""
    return {"prompt": episode.prompt.text, "text": episode.text, "ended_by": episode.ended_by}


def release(info: Mapping[str, Any], slot: int | None = None) -> Release | None:
    """Read the release in ``info``, or None where no episode ended in this step.

    Args:
        info: what ``step`` returned.
        slot: None for the scalar door; for a vector environment, the slot to read.
    """
    if slot is not None:
        return next((item for item in releases(info) if item.slot == slot), None)
    if "final_info" in info or "_token_rewards" in info:
        raise ValueError("this is the info of a vector environment; read it with releases(info) or release(info, slot=i)")
    if "token_rewards" not in info:
        return None
    return _read({key: np.asarray(_host(value))[None] for key, value in info.items() if _is_ours(key)}, 0, 0)


def releases(info: Mapping[str, Any]) -> list[Release]:
    """Read all releases in a vector environment's ``info``, in the order of their slots, in any autoreset mode."""
    source = info.get("final_info", info)  # SAME_STEP puts the ended episode's info there
    mask = source.get("_token_rewards")
    if mask is None:
        if "token_rewards" in source:
            raise ValueError("this is the info of a single environment; read it with release(info)")
        return []
    arrays = {key: _host(value) for key, value in source.items() if _is_ours(key.removeprefix("_"))}
    return [_read(arrays, int(slot), int(slot)) for slot in np.flatnonzero(_host(mask))]


_NUMBERS = ("num_tokens", "episode_id", "group_id", "is_success", "terminated", "truncated")
_KEYS = frozenset(("token_rewards", "token_streams", "agent_mask", *_NUMBERS))


def _is_ours(key: str) -> bool:
    return key in _KEYS or key.startswith(_CRITERIA)


def _host(value: Any) -> Any:
    return value.cpu().numpy() if hasattr(value, "cpu") else value


def _read(arrays: Mapping[str, Any], row: int, slot: int) -> Release:
    used = int(arrays["num_tokens"][row])
    names = [key for key in arrays if key.startswith(_CRITERIA)]
    present = [key for key in names if f"_{key}" not in arrays or arrays[f"_{key}"][row]]
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
        criteria={key.removeprefix(_CRITERIA): float(arrays[key][row]) for key in present},
    )
