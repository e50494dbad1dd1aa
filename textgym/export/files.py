"""Episodes to files and back, without loss: JSON lines (nothing needed) or Parquet (extra ``data``).

Left out on purpose: packing and compression of its own; a file is one record per episode, of plain types, that any tool
reads. Metadata that JSON would change (tuples, keys that are not text) is refused: it would come back as something else.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.episode import Episode, Prompt, Release, read_only
from textgym.export.trainers import Pairs
from textgym.ledger import Ledger

SCHEMA = 1
"""Version of the record; raised whenever a field changes."""
FIELDS = (
    *("schema", "episode_id", "slot", "group_id", "prompt_text", "prompt_ids", "metadata", "response_ids", "text"),
    *("offsets", "agent_mask", "turns", "streams", "token_rewards", "ended_by", "terminated", "truncated", "is_success"),
    *("criteria", "ledger_asked", "ledger_accounts"),
)


def save_episodes(path: str | Path, pairs: Pairs) -> None:
    """Write episodes with their releases to ``path``, one record each, in order: ``.jsonl`` or ``.parquet``.

    Raises:
        ValueError: the name ends otherwise, or a file could not give an episode back as it is; names the episode.
        ImportError: Parquet without the extra ``data``.
    """
    records = [to_record(episode, release) for episode, release in pairs]
    if _suffix(path) == ".parquet":
        tables().write_parquet(path, records)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)


def load_episodes(path: str | Path) -> list[tuple[Episode, Release]]:
    """Read what ``save_episodes`` wrote: pairs that export, view and reward functions take.

    Raises:
        ValueError: the name ends otherwise, a line is no record, or its schema is not this version's; names file and line.
        ImportError: Parquet without the extra ``data``.
    """
    if _suffix(path) == ".parquet":
        return [from_record(record, f"{path}, row {number}") for number, record in enumerate(tables().read_parquet(path))]
    pairs = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is no JSON ({error}); was the file cut?") from error
            pairs.append(from_record(record, f"{path}, line {number}"))
    return pairs


def to_record(episode: Episode, release: Release) -> dict[str, Any]:
    """Write an episode and its release as one record of plain types; see ``FIELDS``.

    ``offsets`` are pairs; ``criteria`` and ``ledger_accounts`` are lists of ``{"name", "value"}``, in order; ``metadata`` is a
    JSON text, because no two tasks have the same; ``token_rewards`` are float32 as Python floats, exactly.

    Raises:
        ValueError: the two do not belong together, a number is not finite, or the metadata would not come back; names the
            episode.
    """
    prompt, name = episode.prompt, f"episode {episode.episode_id}"
    record = {
        "schema": SCHEMA,
        "episode_id": int(release.episode_id),
        "slot": int(release.slot),
        "group_id": None if prompt.group_id is None else int(prompt.group_id),
        "prompt_text": prompt.text,
        "prompt_ids": None if prompt.ids is None else np.asarray(prompt.ids).tolist(),
        "metadata": _metadata(prompt.metadata, name),
        "response_ids": episode.ids.tolist(),
        "text": episode.text,
        "offsets": episode.offsets.tolist(),
        "agent_mask": episode.agent_mask.tolist(),
        "turns": episode.turns.tolist(),
        "streams": release.streams.tolist(),
        "token_rewards": release.token_rewards.tolist(),
        "ended_by": episode.ended_by,
        "terminated": bool(release.terminated),
        "truncated": bool(release.truncated),
        "is_success": bool(release.is_success),
        "criteria": _named(release.criteria),
        "ledger_asked": float(release.ledger.asked),
        "ledger_accounts": _named(release.ledger.accounts),
    }
    numbers = [*record["token_rewards"], record["ledger_asked"], *(item["value"] for item in record["criteria"])]
    if not np.isfinite([*numbers, *(item["value"] for item in record["ledger_accounts"])]).all():
        raise ValueError(f"{name} has a reward, criterion or account that is not finite; nothing that textgym releases is")
    count = len(episode.ids)
    lengths = {key: len(record[key]) for key in ("offsets", "agent_mask", "turns", "streams", "token_rewards")}
    group = -1 if prompt.group_id is None else prompt.group_id
    if (
        episode.episode_id != release.episode_id
        or {count, release.num_tokens} != {*lengths.values(), count}
        or not np.array_equal(episode.agent_mask, release.agent_mask)
        or group != release.group_id
    ):
        raise ValueError(
            f"{name} (group {group}, {count} tokens) stands beside the release of episode {release.episode_id} (group "
            f"{release.group_id}, {release.num_tokens} tokens), arrays {lengths}; pair each episode with its own release"
        )
    return record


def from_record(record: Mapping[str, Any], where: str = "record") -> tuple[Episode, Release]:
    """Read what ``to_record`` wrote.

    Raises:
        ValueError: a field is missing or unknown, or the schema is another version's; ``where`` names the record.
    """
    if not isinstance(record, Mapping) or "schema" not in record:
        raise ValueError(f"{where} is no episode: it has no 'schema'; save_episodes writes such files")
    if record["schema"] != SCHEMA:
        raise ValueError(f"{where} has schema {record['schema']!r}; this version of textgym reads schema {SCHEMA}")
    if odd := {*FIELDS} ^ {*record}:
        raise ValueError(f"{where} lacks or adds the fields {', '.join(sorted(odd))}; a record has {', '.join(FIELDS)}")
    ids = read_only(np.array(record["response_ids"], dtype=np.int64))
    agent_mask = read_only(np.array(record["agent_mask"], dtype=np.bool_))
    prompt_ids = record["prompt_ids"]
    prompt = Prompt(
        record["prompt_text"],
        None if prompt_ids is None else read_only(np.array(prompt_ids, dtype=np.int64)),
        json.loads(record["metadata"]),
        record["group_id"],
    )
    episode = Episode(
        prompt=prompt,
        ids=ids,
        text=record["text"],
        offsets=read_only(np.array(record["offsets"], dtype=np.int64).reshape(len(ids), 2)),
        agent_mask=agent_mask,
        turns=read_only(np.array(record["turns"], dtype=np.int64)),
        ended_by=record["ended_by"],
        episode_id=record["episode_id"],
    )
    release = Release(
        episode_id=record["episode_id"],
        slot=record["slot"],
        token_rewards=read_only(np.array(record["token_rewards"], dtype=np.float32)),
        streams=read_only(np.array(record["streams"], dtype=np.int64)),
        agent_mask=agent_mask,
        num_tokens=len(ids),
        terminated=record["terminated"],
        truncated=record["truncated"],
        is_success=record["is_success"],
        group_id=-1 if prompt.group_id is None else prompt.group_id,
        criteria={item["name"]: item["value"] for item in record["criteria"]},
        ledger=Ledger(record["ledger_asked"], {item["name"]: item["value"] for item in record["ledger_accounts"]}),
    )
    return episode, release


def tables() -> Any:
    """Give ``textgym.export.tables``, which needs the extra ``data``.

    Raises:
        ImportError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module("textgym.export.tables")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Parquet and datasets need {error.name}, which is not installed: pip install 'textgym[data]'"
        ) from error


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix
    if suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"the file is {str(path)!r}; its name must end in .jsonl or .parquet, which says how it is written")
    return suffix


def _metadata(metadata: Mapping[str, Any], name: str) -> str:
    plain = dict(metadata)
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the prompt's metadata of {name} has what JSON has not ({error}): {plain!r}; keep to plain numbers, texts, "
            "lists and dicts"
        ) from error
    if not _alike(json.loads(text), plain):
        raise ValueError(
            f"the prompt's metadata of {name} would come back otherwise: {plain!r}; JSON has no tuples, and only texts as keys"
        )
    return text


def _alike(a: Any, b: Any) -> bool:
    """Whether two plain values are equal in type too: 1, 1.0 and True are not, nor are a list and a tuple."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_alike(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return a == b


def _named(values: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"name": name, "value": float(value)} for name, value in values.items()]


def to_pairs(records: Iterable[Mapping[str, Any]]) -> Sequence[tuple[Episode, Release]]:
    """Read records in order; errors name the row."""
    return [from_record(record, f"row {number}") for number, record in enumerate(records)]
