"""Where prompts come from: a list, a ``datasets.Dataset``, a JSON lines or Parquet file; and what one of them is.

Order and columns stay exactly as they are: prompt i is row i, and every column but ``prompt`` is in its metadata.

Left out on purpose: a choice of split, column or rows; the libraries that hold the data have that. Cutting: a prompt that
does not fit is refused where it is used.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.episode import Prompt
from textgym.tokenizer import TextTokenizer

Messages: TypeAlias = Sequence[Mapping[str, Any]]
Row: TypeAlias = Mapping[str, Any]
PromptLike: TypeAlias = str | Prompt | Messages | Sequence[int] | Row

PROMPT = "prompt"
"""The column that holds the prompt. Of a conversation it stays in the metadata, as its list of messages."""


def read_prompts(prompts: Any) -> list[Any]:
    """Read the rows of a file, a dataset or a list, in order; ``as_prompt`` says what a row is.

    Args:
        prompts: the name of a ``.jsonl`` or ``.parquet`` file (the latter needs the extra ``data``), a ``datasets.Dataset``, or
            a list.

    Raises:
        ValueError: there is none, they are no list, or a line is no JSON.
        ImportError: Parquet without the extra ``data``.
    """
    if isinstance(prompts, str | Path) and Path(prompts).suffix in (".jsonl", ".parquet"):
        rows = _parquet(prompts) if Path(prompts).suffix == ".parquet" else _json_lines(prompts)
        if not rows:
            raise ValueError(f"{str(prompts)!r} holds no prompt; give at least one row")
        return rows
    what = "give a list with at least one text or Prompt, a datasets.Dataset, or the name of a .jsonl or .parquet file"
    if isinstance(prompts, Mapping):
        raise ValueError(f"prompts is a {type(prompts).__name__} of {list(prompts)}; choose one split of it, or {what}")
    # Rows of a dataset that is set to give tensors would be no texts and numbers.
    plain = getattr(prompts, "with_format", None)
    # A set has no order that a seed could repeat, and a table of pandas would give the names of its columns.
    if isinstance(prompts, str | Path) or (plain is None and not isinstance(prompts, Sequence | np.ndarray)):
        raise ValueError(f"prompts is {prompts!r}; {what} (of a stream or a set, a list of it; of a table, its list of rows)")
    rows = list(prompts if plain is None else plain(None))
    if not rows:
        raise ValueError(f"prompts is {prompts!r}; {what}")
    return rows


def as_prompt(item: Any, tokenizer: TextTokenizer) -> Prompt:
    """Turn one row into a prompt, with ids where they are given or a chat template writes them.

    ==========================================  =====================================================================
    a row that is                               means
    ==========================================  =====================================================================
    a text                                      itself
    a list of messages                          text and ids of the tokenizer's chat template; metadata["prompt"] keeps it
    a list of whole numbers                     token ids, as they are; the text is what they decode to
    a Mapping with a "prompt" that is           that, with the other columns as metadata
    one of these
    a ``Prompt``                                itself
    ==========================================  =====================================================================

    Raises:
        ValueError: the row is none of these, or has columns that a chat template would have to see.
    """
    if isinstance(item, Prompt):
        return item
    if isinstance(item, str):
        return Prompt(item)
    if isinstance(item, Mapping):
        return _of_row(item, tokenizer)
    if isinstance(item, list | tuple) and item and all(isinstance(message, Mapping) for message in item):
        return Prompt(*tokenizer.chat(item), {PROMPT: [dict(message) for message in item]})
    if isinstance(item, list | tuple | np.ndarray) and _are_ids(item):
        ids = np.asarray(item, dtype=np.int64)
        fits = ids.ndim == 1 and ids.min() >= 0 and ids.max() < tokenizer.vocab_size
        return Prompt(tokenizer.decode(ids) if fits else "", ids)  # encode_prompt refuses what does not fit
    raise ValueError(
        f"a prompt is {item!r}, a {type(item).__name__}; give a Prompt, a text, a list of messages "
        '{"role": ..., "content": ...}, a list of token ids, or a dict {"prompt": one of these, ...}'
    )


def _are_ids(item: Any) -> bool:
    try:
        array = np.asarray(item)
    except ValueError:  # lists of several lengths
        return False
    return array.size > 0 and array.ndim > 0 and array.dtype.kind in "iu"


def _of_row(row: Row, tokenizer: TextTokenizer) -> Prompt:
    if {*row} == {"role", "content"}:
        raise ValueError(f"a prompt is one message, {dict(row)}; give a Prompt, a text, or a list of messages for each prompt")
    if PROMPT not in row or isinstance(row[PROMPT], Prompt | Mapping):
        raise ValueError(
            f"a prompt is a dict with the keys {list(row)}; it needs 'prompt': a text, a list of messages or of token ids "
            "(rename the column)"
        )
    prompt = as_prompt(row[PROMPT], tokenizer)
    columns = {name: value for name, value in row.items() if name != PROMPT}
    if prompt.metadata:
        for name in ("tools", "chat_template_kwargs"):
            if columns.get(name) is not None:
                raise ValueError(
                    f"a conversation has a column {name!r}, which its chat template would have to see; write the prompt with "
                    "tokenizer.apply_chat_template, and give its text or ids"
                )
    return Prompt(prompt.text, prompt.ids, {**columns, **prompt.metadata})


def encode_prompt(prompt: PromptLike, tokenizer: TextTokenizer) -> Prompt:
    """Return a prompt with its ``ids`` set (int64): as given, or encoded from its text without special tokens.

    Begin-of-text comes before a text where ``tokenizer.add_bos`` says so and the text does not begin with it. A list of
    messages is written by the tokenizer's chat template; text and ids are then exactly the template's.

    Args:
        prompt: what ``as_prompt`` takes.
        tokenizer: encodes texts.

    Raises:
        ValueError: an id is not of the tokenizer's, or the prompt is none.
    """
    prompt = as_prompt(prompt, tokenizer)
    if prompt.ids is not None:
        ids = np.asarray(prompt.ids)
        fits = ids.ndim == 1 and len(ids) > 0 and ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < tokenizer.vocab_size
        if not fits:
            raise ValueError(
                f"prompt {prompt.text!r} has ids {ids.tolist()}; allowed are one or more of 0..{tokenizer.vocab_size - 1}"
            )
        ids = ids.astype(np.int64)
    elif prompt.text == "":
        ids = np.array([tokenizer.bos_token_id], dtype=np.int64)
    else:
        ids = tokenizer.encode(prompt.text)
        if len(ids) == 0:
            raise ValueError(f"prompt {prompt.text!r} encodes to no token; a model cannot predict from nothing")
        if tokenizer.add_bos and ids[0] != tokenizer.bos_token_id:
            ids = np.concatenate([[tokenizer.bos_token_id], ids])
    return Prompt(prompt.text, ids, prompt.metadata, prompt.group_id)


def check_room(prompt: Prompt, max_prompt_tokens: int, name: str = "prompt") -> None:
    """Raise ValueError where the prompt's ids do not fit; prompts are never cut."""
    if len(ids_of(prompt)) > max_prompt_tokens:
        raise ValueError(
            f"{name} has {len(ids_of(prompt))} tokens but max_prompt_tokens is {max_prompt_tokens}: {prompt.text!r}; raise "
            "max_prompt_tokens or shorten the prompt (prompts are never cut)"
        )


def ids_of(prompt: Prompt) -> npt.NDArray[np.int64]:
    """Give the ids of a prompt that has some, int64 (n,)."""
    if prompt.ids is None:
        raise ValueError(f"prompt {prompt.text!r} has no ids yet; encode it with encode_prompt first")
    return np.asarray(prompt.ids)


def _json_lines(path: str | Path) -> list[Any]:
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is no JSON ({error}); give one prompt a line") from error
            _check_column(rows[-1], f"{path}, line {number}")
    return rows


def _parquet(path: str | Path) -> list[Any]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ImportError("Parquet needs pyarrow, which is not installed: pip install 'textgym[data]'") from error
    table = parquet.ParquetFile(path).read()
    _check_column(dict.fromkeys(table.column_names), str(path))
    return table.to_pylist()


def _check_column(row: Any, where: str) -> None:
    """Raise ValueError where a file's row has columns and none of them is the prompt's; a row of messages has none."""
    if isinstance(row, Mapping) and PROMPT not in row and {*row} != {"role", "content"}:
        columns = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"{where} has no column {PROMPT!r}; it has {columns}: rename the one that holds the prompt")
