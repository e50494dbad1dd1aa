"""One view of a tokenizer: size, end-of-text, encode, decode, and the character offsets of *sampled* ids.

Left out on purpose: re-encoding. Most random samples of a BPE vocabulary change when their text is encoded again, so
offsets come from decoding the ids themselves, and no function here goes from ids over text back to ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.decoders import DecodeStream

REPLACEMENT = "\ufffd"  # what decoding gives for bytes that are not (yet) a character


class TextTokenizer:
    """A ``tokenizers.Tokenizer``, or a Hugging Face tokenizer backed by one, as textgym uses it.

    Copies as itself (Gymnasium deep-copies the arguments of ``make``).

    Args:
        tokenizer: ``tokenizers.Tokenizer``, Hugging Face tokenizer with a fast backend, or another ``TextTokenizer``.
        eos_token_id: id that ends an episode; default: the tokenizer's own ``eos_token_id``.
        bos_token_id: id that an empty prompt starts from; default: the tokenizer's own, else ``eos_token_id``.

    Raises:
        TypeError: the object is neither kind of tokenizer.
        ValueError: it has no end-of-text token, cuts or pads texts, or rewrites what it decodes.
    """

    def __init__(self, tokenizer: Any, *, eos_token_id: int | None = None, bos_token_id: int | None = None) -> None:
        if isinstance(tokenizer, TextTokenizer):
            eos_token_id = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
            bos_token_id = tokenizer.bos_token_id if bos_token_id is None else bos_token_id
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
        tokens = _as_list(ids)
        text = self.decode(tokens)
        offsets = np.zeros((len(tokens), 2), dtype=np.int64)
        stream = DecodeStream(skip_special_tokens=True)
        position = 0
        try:
            for i, token in enumerate(tokens):
                chunk = "" if token in self.special_ids else stream.step(self.backend, token)
                if chunk is None or not text.startswith(chunk, position):  # bytes of a split character, most often
                    return text, self._offsets_by_prefix(tokens, text)
                offsets[i] = position, position + len(chunk)
                position += len(chunk)
        except Exception:  # the stream refuses some prefixes; the slow way refuses none
            return text, self._offsets_by_prefix(tokens, text)
        return text, offsets if position == len(text) else self._offsets_by_prefix(tokens, text)

    def _offsets_by_prefix(self, tokens: list[int], text: str) -> npt.NDArray[np.int64]:
        """The definition of offsets, one decode per token, for texts that hold split characters.

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
        held = iter(character.tolist())
        for i in run:
            if tokens[i] in self.special_ids:
                offsets[i] = offsets[i - 1, 1]
            else:
                offsets[i] = start + next(held) + np.array([0, 1])
        return end, start + int(character[-1]) + 1

    def may_complete(self, stops: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Mark the tokens whose text can hold the last character of one of ``stops``. Returns bool (V,).

        A table of candidates, so that a step only decodes where a stop string can have been completed. Bytes of a split
        character are always candidates.
        """
        if not isinstance(self.backend.decoder, decoders.ByteLevel | decoders.Fuse | decoders.Metaspace | decoders.Sequence):
            return np.ones(self.vocab_size, dtype=np.bool_)  # a decoder that may put characters between any two tokens
        anchor = [next(i for i in range(self.vocab_size) if i not in self.special_ids)]
        alone = self.backend.decode_batch([[i] for i in range(self.vocab_size)], skip_special_tokens=False)
        inside = self.backend.decode_batch([[*anchor, i] for i in range(self.vocab_size)], skip_special_tokens=False)
        wanted = {stop[-1] for stop in stops} | {REPLACEMENT}
        return np.array([any(c in a or c in b for c in wanted) for a, b in zip(alone, inside, strict=True)], dtype=np.bool_)

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


def _common_prefix(a: str, b: str) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
