"""Records of episodes as Parquet files and as ``datasets.Dataset``: typed columns, float32 and int64 as they are.

Left out on purpose: a column per criterion or per key of the metadata. They differ from task to task, and one schema lets
files of all tasks be joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from textgym.episode import Episode, Release
from textgym.export.files import FIELDS, to_pairs, to_record
from textgym.export.trainers import Pairs

_NAMED = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
_TYPES = {
    **dict.fromkeys(("schema", "episode_id", "slot", "group_id"), pa.int64()),
    **dict.fromkeys(("prompt_text", "metadata", "text", "ended_by"), pa.string()),
    **dict.fromkeys(("prompt_ids", "response_ids", "turns", "streams"), pa.list_(pa.int64())),
    "offsets": pa.list_(pa.list_(pa.int64())),
    "agent_mask": pa.list_(pa.bool_()),
    "token_rewards": pa.list_(pa.float32()),
    **dict.fromkeys(("terminated", "truncated", "is_success"), pa.bool_()),
    **dict.fromkeys(("criteria", "ledger_accounts"), _NAMED),
    "ledger_asked": pa.float64(),
}
COLUMNS = pa.schema([(name, _TYPES[name]) for name in FIELDS])
"""Types of the columns; names as in ``textgym.export.files.FIELDS``."""


def to_dataset(pairs: Pairs) -> datasets.Dataset:
    """Make a ``datasets.Dataset`` of episodes and their releases, a row each, in order.

    Raises:
        ValueError: a row could not give an episode back as it is; names the episode.
    """
    records = [to_record(episode, release) for episode, release in pairs]
    return datasets.Dataset.from_list(records, features=datasets.Features.from_arrow_schema(COLUMNS))


def from_dataset(dataset: datasets.Dataset) -> list[tuple[Episode, Release]]:
    """Read what ``to_dataset`` made, or a Parquet file of ``save_episodes`` loaded by ``datasets``.

    Raises:
        ValueError: a row is no record of this version.
    """
    return list(to_pairs(dataset.with_format(None)))  # type: ignore[arg-type]  # rows are dicts


def write_parquet(path: str | Path, records: Sequence[dict[str, Any]]) -> None:
    """Write records to a Parquet file."""
    pq.write_table(pa.Table.from_pylist(list(records), schema=COLUMNS), path)


def read_parquet(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file, of whatever columns, as dicts of plain types."""
    return pq.ParquetFile(path).read().to_pylist()
