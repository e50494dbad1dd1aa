"""One view of a tokenizer: size, end-of-text, encode, decode, and the character offsets of *sampled* ids.

Left out on purpose: re-encoding. Most random samples of a BPE vocabulary change when their text is encoded again, so
offsets come from decoding the ids themselves, and no function here goes from ids over text back to ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

REPLACEMENT = "\ufffd"  # what decoding gives for bytes that are not (yet) a character
_MARGIN = 8  # characters at the beginning of a cut text that may read otherwise than in the whole


class _Pieces(NamedTuple):
    """What each token decodes to, over the vocabulary."""

    first: list[str]
    """At the start of a text, where some decoders drop a space."""
    later: list[str]
    """After other tokens."""
    lengths: npt.NDArray[np.int64]
    """(V,) characters of ``later``."""
    special: npt.NDArray[np.bool_]
    """(V,)"""
    whole: npt.NDArray[np.bool_]
    """(V,) True where the token holds whole characters whatever stands beside it."""
    anchor: int
    """A token after which others show what they decode to."""


class TextTokenizer:
    """A ``tokenizers.Tokenizer``, or a Hugging Face tokenizer backed by one, as textgym uses it.

    Copies as itself (Gymnasium deep-copies the arguments of ``make``).

    Args:
        tokenizer: ``tokenizers.Tokenizer``, Hugging Face tokenizer with a fast backend, or another ``TextTokenizer``.
        eos_token_id: id that ends an episode; default: the tokenizer's own ``eos_token_id``.
        bos_token_id: id that an empty prompt starts from; default: the tokenizer's own, else ``eos_token_id``.
        add_bos: put it before prompts that are texts, as models like Llama's expect; never between prompt and response.

    Raises:
        TypeError: the object is neither kind of tokenizer.
        ValueError: it has no end-of-text token, cuts or pads texts, or rewrites what it decodes.
    """

    def __init__(
        self, tokenizer: Any, *, eos_token_id: int | None = None, bos_token_id: int | None = None, add_bos: bool | None = None
    ) -> None:
        if isinstance(tokenizer, TextTokenizer):
            eos_token_id = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
            bos_token_id = tokenizer.bos_token_id if bos_token_id is None else bos_token_id
            add_bos = tokenizer.add_bos if add_bos is None else add_bos
            tokenizer = tokenizer.source
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(backend, Tokenizer):
            raise TypeError(
                f"tokenizer is a {type(tokenizer).__name__}; allowed are a tokenizers.Tokenizer or a Hugging Face tokenizer "
                "backed by one (a 'fast' one): offsets of sampled ids need its decoder"
            )
        self.source = tokenizer
        self.backend = backend
        self.vocab_size = int(backend.get_vocab_size(with_added_tokens=True))
        eos = getattr(tokenizer, "eos_token_id", None) if eos_token_id is None else eos_token_id
        if eos is None:
            raise ValueError(
                "tokenizer has no end-of-text token, so an episode could only end at its length limit; set "
                "tokenizer.eos_token, or pass TextTokenizer(tokenizer, eos_token_id=...)"
            )
        bos = getattr(tokenizer, "bos_token_id", None) if bos_token_id is None else bos_token_id
        self.eos_token_id = int(eos)
        self.bos_token_id = int(eos if bos is None else bos)
        self.add_bos = bool(add_bos)
        self.special_ids = frozenset(i for i, t in backend.get_added_tokens_decoder().items() if t.special)
        self._fallback_bytes = self._find_fallback_bytes()
        self._check()

    def _find_fallback_bytes(self) -> dict[int, int]:
        """Find the tokens ``<0xNN>`` that the decoder turns into bytes; empty where it does not."""
        named = {f"<0x{byte:02X}>": byte for byte in range(256)}
        found = {i: byte for piece, byte in named.items() if (i := self.backend.token_to_id(piece)) is not None}
        probe = next((i for i, byte in found.items() if byte == ord("A")), None)
        return found if probe is not None and self.decode([probe, probe]) == "AA" else {}

    def _check(self) -> None:
        largest = max(self.backend.get_vocab(with_added_tokens=True).values())
        if largest >= self.vocab_size:
            raise ValueError(
                f"tokenizer has {self.vocab_size} tokens but ids up to {largest}; actions are 0..{self.vocab_size - 1}, so "
                "its vocabulary must have no holes"
            )
        for name, value in (("eos_token_id", self.eos_token_id), ("bos_token_id", self.bos_token_id)):
            if not 0 <= value < self.vocab_size:
                raise ValueError(f"{name} is {value}; allowed are 0..{self.vocab_size - 1}, the tokenizer's ids")
        if self.source is self.backend and (self.backend.truncation or self.backend.padding):
            raise ValueError(
                "tokenizer truncates or pads what it encodes; nothing is cut silently here: call its no_truncation() and "
                "no_padding() first"
            )
        if self.source is not self.backend and getattr(self.source, "clean_up_tokenization_spaces", False):
            probe = np.asarray(self.encode("a , b . it 's"))
            if self.source.decode(probe.tolist(), skip_special_tokens=True) != self.decode(probe):
                raise ValueError(
                    "tokenizer rewrites decoded text (clean_up_tokenization_spaces is True), so characters could not be "
                    "traced to tokens; set tokenizer.clean_up_tokenization_spaces = False"
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> TextTokenizer:
        return self

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Encode ``text`` without special tokens. Returns int64 (number of tokens,).

        Raises:
            ValueError: the text has something that the vocabulary has not.
        """
        if self.source is self.backend:
            encode = self.backend.encode
        else:
            encode = self.source.encode
        try:
            ids = encode(text, add_special_tokens=False)
        except Exception as error:  # tokenizers raises nothing more special
            raise ValueError(f"the tokenizer cannot encode {text!r}: {error}") from error
        ids = getattr(ids, "ids", ids)
        return np.asarray(ids, dtype=np.int64)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, npt.NDArray[np.int64]]:
        """Write a conversation by the tokenizer's chat template, up to where the assistant's next message begins.

        Args:
            messages: ``{"role": ..., "content": ...}``, as the template wants them.

        Returns:
            The template's text, special tokens written out, and its ids, int64 (number of tokens,); none is added to them.

        Raises:
            ValueError: there is no chat template, or it does not take these messages.
        """
        if getattr(self.source, "chat_template", None) is None:
            raise ValueError(
                f"a prompt is a list of messages but the tokenizer, a {type(self.source).__name__}, has no chat template; use "
                "a Hugging Face tokenizer with one (tokenizer.chat_template = ...), or give the prompt as a text"
            )
        apply = self.source.apply_chat_template
        try:
            text = apply(messages, add_generation_prompt=True, tokenize=False)
            ids = apply(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        except Exception as error:  # a template is a program and raises what it likes
            raise ValueError(f"the tokenizer's chat template does not take {list(messages)}: {error}") from error
        return text, np.asarray(ids, dtype=np.int64)

    def decode(self, ids: Iterable[int] | npt.NDArray[np.int64]) -> str:
        """Decode ``ids`` with special tokens left out."""
        return self.backend.decode(_as_list(ids), skip_special_tokens=True)

    def piece(self, token_id: int) -> str:
        """Return one token as it is written in the vocabulary, special tokens included."""
        return self.backend.id_to_token(int(token_id)) or f"<{int(token_id)}>"

    def offsets(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> tuple[str, npt.NDArray[np.int64]]:
        """Decode ``ids`` and say which characters each token holds.

        Token i holds the half-open range ``offsets[i]`` of characters of the returned text. Tokens that share a
        character (bytes of one character) all hold it. Special tokens are zero-width.

        Returns:
            text, as ``decode(ids)``; offsets int64 (T, 2).
        """
        tokens = np.asarray(ids, dtype=np.int64)
        text = self.decode(tokens)
        offsets = self._offsets_by_pieces(tokens, text)
        return text, self._offsets_by_prefix(tokens.tolist(), text) if offsets is None else offsets

    @cached_property
    def _pieces(self) -> _Pieces | None:
        """The table behind ``_offsets_by_pieces``; None where no token could anchor the decoding of others."""
        every = range(self.vocab_size)
        special = np.isin(np.arange(self.vocab_size), sorted(self.special_ids))
        first = self.backend.decode_batch([[i] for i in every], skip_special_tokens=True)
        whole = np.array([REPLACEMENT not in piece for piece in first], dtype=np.bool_)
        whole[list(self._fallback_bytes)] = False
        anchor = next((i for i in every if whole[i] and first[i].strip() == first[i] != ""), None)
        if anchor is None:
            return None
        before = first[anchor]
        inside = self.backend.decode_batch([[anchor, i] for i in every], skip_special_tokens=True)
        whole &= np.array([piece.startswith(before) for piece in inside], dtype=np.bool_)
        later = [piece[len(before) :] for piece in inside]
        return _Pieces(first, later, np.array([len(piece) for piece in later], dtype=np.int64), special, whole, anchor)

    def _offsets_by_pieces(self, ids: npt.NDArray[np.int64], text: str) -> npt.NDArray[np.int64] | None:
        """Lay what each token decodes to end to end; None where that does not come to ``text``.

        Runs of tokens that share characters are decoded together, each run for itself.
        """
        if self._pieces is None:
            return None
        first, later, lengths, special, whole, anchor = self._pieces
        shown = ~special[ids]
        tokens = ids[shown]
        starts, ends = np.zeros(len(tokens), dtype=np.int64), np.cumsum(lengths[tokens])
        parts = [later[token] for token in tokens.tolist()]
        if len(tokens) and whole[tokens[0]]:
            parts[0] = first[tokens[0]]
            ends += len(parts[0]) - lengths[tokens[0]]
        starts[1:] = ends[:-1]
        split = ~whole[tokens]
        for begin, end in _runs(split) if split.any() else ():
            run = tokens[begin:end].tolist()
            # Inside a text a run reads as it does after another token.
            before = [anchor] if begin else []
            skip = len(first[anchor]) if begin else 0
            whole_part = self.decode([*before, *run])
            part = whole_part[skip:]
            at = int(ends[begin - 1]) if begin else 0
            held = self._offsets_by_prefix([*before, *run], whole_part)[len(before) :] - skip + at
            shift = at + len(part) - int(ends[end - 1])
            starts[begin:end], ends[begin:end] = held[:, 0], held[:, 1]
            starts[end:] += shift
            ends[end:] += shift
            parts[begin:end] = [part, *[""] * (end - begin - 1)]
        if "".join(parts) != text:
            return None
        offsets = np.empty((len(ids), 2), dtype=np.int64)
        offsets[shown, 0], offsets[shown, 1] = starts, ends
        for i in np.flatnonzero(~shown).tolist():
            offsets[i] = offsets[i - 1, 1] if i else 0
        return offsets

    def _offsets_by_prefix(self, tokens: list[int], text: str) -> npt.NDArray[np.int64]:
        """The definition of offsets, one decode per token; used where tokens share characters.

        Let D(i) be the text of the first i tokens. Token i starts where D(i) and ``text`` part, and ends where D(i + 1)
        and ``text`` part; where D(i + 1) ends in an unfinished character, the token also holds the character that its
        bytes become.
        """
        offsets = np.zeros((len(tokens), 2), dtype=np.int64)
        start = i = 0
        while i < len(tokens):
            if tokens[i] in self.special_ids:
                offsets[i] = offsets[i - 1, 1] if i else 0
                i += 1
                continue
            if tokens[i] in self._fallback_bytes:
                i, start = self._offsets_of_bytes(tokens, i, start, offsets)
                continue
            prefix = self.decode(tokens[: i + 1])
            settled = max(start, _common_prefix(prefix, text))
            if settled < len(prefix):  # bytes of a character that a later token finishes
                offsets[i] = start, min(settled + 1, len(text))
            elif settled == start > 0 and prefix.endswith(REPLACEMENT):  # bytes that an earlier replacement stands for
                offsets[i] = start - 1, start
            else:
                offsets[i] = start, settled
            start = settled
            i += 1
        return offsets

    def _offsets_of_bytes(self, tokens: list[int], first: int, start: int, offsets: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Fill the offsets of a run of byte-fallback tokens. Returns the first token after it, and where that one starts.

        A run is decoded as a whole: to characters where all of it is UTF-8, else to one replacement character per byte. So
        no prefix of a run tells what its bytes become. Special tokens do not end a run; they are gone before decoding.
        """
        run = []
        end = first
        while end < len(tokens) and (tokens[end] in self._fallback_bytes or tokens[end] in self.special_ids):
            run.append(end)
            end += 1
        data = bytes(self._fallback_bytes[tokens[i]] for i in run if tokens[i] not in self.special_ids)
        try:
            data.decode("utf-8")
            lead = np.array([byte & 0xC0 != 0x80 for byte in data])  # bytes that begin a character
            character = np.cumsum(lead) - 1
        except UnicodeDecodeError:
            character = np.arange(len(data))
        # Some decoders drop a space at the beginning of a text: the bytes that made it hold nothing.
        shown = len(self.decode([tokens[i] for i in run])) if start == 0 else int(character[-1]) + 1
        dropped = int(character[-1]) + 1 - shown
        held = iter((character - dropped).tolist())
        for i in run:
            if tokens[i] in self.special_ids:
                offsets[i] = offsets[i - 1, 1]
            else:
                at = next(held)
                offsets[i] = start + max(at, 0), start + max(at + 1, 0)
        return end, start + shown

    def may_complete(self, stops: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Mark the tokens whose text can hold the last character of one of ``stops``. Returns bool (V,).

        A table of candidates, so that a step only decodes where a stop string can have been completed. Bytes of a split
        character are always candidates.
        """
        if not self._is_local:
            return np.ones(self.vocab_size, dtype=np.bool_)  # a decoder that may put characters between any two tokens
        anchor = [next(i for i in range(self.vocab_size) if i not in self.special_ids)]
        alone = self.backend.decode_batch([[i] for i in range(self.vocab_size)], skip_special_tokens=False)
        inside = self.backend.decode_batch([[*anchor, i] for i in range(self.vocab_size)], skip_special_tokens=False)
        wanted = {stop[-1] for stop in stops} | {REPLACEMENT}
        return np.array([any(c in a or c in b for c in wanted) for a, b in zip(alone, inside, strict=True)], dtype=np.bool_)

    def tail(self, ids: npt.NDArray[np.int64], characters: int, start: int = 0) -> str:
        """Decode the end of the text that ``ids[start:]`` hold, in their place after ``ids[:start]``.

        Returns:
            At least the last ``characters`` characters, or all where there are fewer; the time it takes does not grow with
            the text.
        """
        width = characters + _MARGIN
        while True:
            first = max(0, len(ids) - width) if self._is_local else 0
            while first > 0 and (ids[first] in self._fallback_bytes or ids[first] in self.special_ids):
                first -= 1  # a run of bytes is decoded as a whole
            text = self.decode(ids[first:])
            if first < start:
                text = text[_common_prefix(self.decode(ids[first:start]), text) :]
            elif first > 0 and len(text) < characters + _MARGIN:  # its beginning may differ from the whole text's
                width *= 2
                continue
            return text

    @property
    def _is_local(self) -> bool:
        """Whether what a token decodes to depends on its neighbours only."""
        return isinstance(self.backend.decoder, decoders.ByteLevel | decoders.Fuse | decoders.Metaspace | decoders.Sequence)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write files that ``transformers.AutoTokenizer.from_pretrained(folder)`` loads."""
        if self.source is not self.backend:
            self.source.save_pretrained(str(folder))
            return
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(path / "tokenizer.json"))
        config = {
            "tokenizer_class": "TokenizersBackend",
            "eos_token": self.backend.id_to_token(self.eos_token_id),
            "bos_token": self.backend.id_to_token(self.bos_token_id),
        }
        (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def symbol_tokenizer(symbols: Sequence[str]) -> TextTokenizer:
    """Build a tokenizer whose tokens are exactly ``symbols``; the longest symbol that fits is taken first.

    Ids: 0 is begin-of-text, 1 end-of-text, then ``symbols`` in order. Decoding joins the symbols. A text with anything
    else in it cannot be encoded and raises.
    """
    if not symbols or len(set(symbols)) != len(symbols) or not all(symbols):
        raise ValueError(f"symbols must be one or more distinct texts, none of them empty, got {list(symbols)}")
    special = ["<s>", "</s>"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate([*special, *symbols])}))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    pattern = "|".join(_escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return TextTokenizer(tokenizer, eos_token_id=1, bos_token_id=0)


def _escape(symbol: str) -> str:
    return "".join("\\" + c if not c.isalnum() and not c.isspace() else c for c in symbol)


def _as_list(ids: Iterable[int] | npt.NDArray[np.int64]) -> list[int]:
    return ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Find the runs of True, as half-open ranges."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _common_prefix(a: str, b: str) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
